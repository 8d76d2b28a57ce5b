/* SPDX-License-Identifier: MIT */
/*
 * The limits of a Lua state. Memory is counted where it is allocated; time is
 * counted by a hook at every 1 000 instructions and at each large allocation,
 * against the thread's CPU clock, which is first read there: a short entry
 * costs no clock at all. Once time is up the hook comes at every instruction,
 * so no pcall of the script outlives it.
 */
#include <stdlib.h>
#include <time.h>

#include "private.h"

#define STEP 1000

/* What is made of so many bytes is worth a look at the clock. */
#define LARGE_BYTES 32768

#ifdef RELAY_LUA_STRESS
#define EXTRA_MS 200 /* the collector's time is the script's */
#define STRESS_BYTES (256 << 10)
#else
#define EXTRA_MS 0
#endif

/* ---- time ------------------------------------------------------------- */

#ifndef CLOCK_MONOTONIC_RAW
#define CLOCK_MONOTONIC_RAW CLOCK_MONOTONIC
#endif

static uint64_t read_clock(clockid_t clock) {
  struct timespec now;

  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t cpu_ns(void) {
  return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

/* The CPU clock is a system call, the other is none and never behind it. */
static bool is_over(struct budget *budget) {
  uint64_t now;

  if (budget->limit_ns == 0)
    return false;
  now = read_clock(CLOCK_MONOTONIC_RAW);
  if (budget->began_ns == 0) {
    budget->began_ns = now;
    budget->began_cpu_ns = cpu_ns();
  }
  if (!budget->is_over && now - budget->began_ns >= budget->limit_ns)
    budget->is_over = cpu_ns() - budget->began_cpu_ns >= budget->limit_ns;
  return budget->is_over;
}

static void on_count(lua_State *L, lua_Debug *at) {
  struct relay_lua *lua = relay__lua_owner_of(L);
  struct policy *policy = lua != NULL ? lua->running : NULL;

  if (policy == NULL) { /* a coroutine that somebody else resumed */
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  if (!is_over(&policy->budget)) {
    if (lua_gethookcount(L) != STEP)
      lua_sethook(L, on_count, LUA_MASKCOUNT, STEP);
    return;
  }
  lua->worn_out = true;
  lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
  lua_getinfo(L, "Sl", at);
  luaL_error(L, "%s:%d: it took more than %d ms of CPU time", at->short_src,
             at->currentline, (int)(policy->budget.limit_ns / 1000000));
}

/* Nothing can be raised from within an allocation; the next instruction can.
   Setting a hook takes no memory, and Lua allows it at any time. */
static void look_at_clock(struct policy *policy) {
  if (is_over(&policy->budget))
    lua_sethook(policy->thread, on_count, LUA_MASKCOUNT, 1);
}

void relay__lua_budget_begin(struct policy *policy, unsigned budget_ms) {
  uint64_t ms = budget_ms != 0 ? budget_ms + EXTRA_MS : 0; /* 0: any */

  policy->budget = (struct budget){.limit_ns = ms * 1000000};
}

void relay__lua_budget_arm(const struct policy *policy, lua_State *L) {
  if (policy->budget.limit_ns != 0 &&
      (lua_gethookcount(L) != STEP || lua_gethook(L) != on_count))
    lua_sethook(L, on_count, LUA_MASKCOUNT, STEP);
}

/* ---- memory ----------------------------------------------------------- */

static void *allocate(void *data, void *block, size_t old_size, size_t size) {
  struct policy *policy = data;
  size_t old = block != NULL ? old_size : 0;
  void *moved;

  if (size == 0) {
    policy->memory_bytes -= old;
    free(block);
    return NULL;
  }
  if (size > old && !policy->uncapped &&
      policy->memory_bytes - old + size > policy->lua->options.memory_bytes) {
    policy->is_full = true;
    return NULL;
  }
  moved = realloc(block, size);
  if (moved == NULL)
    return size <= old ? block : NULL; /* Lua relies on shrinking */
  policy->memory_bytes = policy->memory_bytes - old + size;
  if (size > old + LARGE_BYTES && policy->thread != NULL)
    look_at_clock(policy);
  return moved;
}

#ifdef RELAY_LUA_STRESS
/* For tests. Each object is refused once: Lua then collects all there is, and
   asks again. So whatever is not anchored is gone when the next object is made.
   A large heap takes its time, so there it is done now and then. (Of a new
   object Lua says the type as its old size. Buffers of strings are spared: for
   them it does not ask again.) */
void *relay__lua_allocate(void *data, void *block, size_t old_size,
                          size_t size) {
  struct policy *policy = data;
  size_t large = policy->memory_bytes / STRESS_BYTES;
  void *result = NULL;

  if (block != NULL || old_size == 0 || policy->L == NULL)
    return allocate(data, block, old_size, size);
  if (policy->refused || ++policy->asked <= large * large)
    result = allocate(data, block, old_size, size);
  else
    policy->asked = 0;
  policy->refused = result == NULL;
  return result;
}
#else
void *relay__lua_allocate(void *data, void *block, size_t old_size,
                          size_t size) {
  return allocate(data, block, old_size, size);
}
#endif

/* ---- want of memory --------------------------------------------------- */

#define REST_MS 1000

bool relay__lua_is_starved(const struct policy *policy) {
  return policy->starved_until_ms > uv_now(policy->lua->loop);
}

void relay__lua_relieve(struct policy *policy) {
  size_t cap = policy->lua->options.memory_bytes;

  if (!policy->is_full)
    return;
  lua_gc(policy->L, LUA_GCCOLLECT, 0);
  policy->is_full = false;
  if (policy->memory_bytes > cap - cap / 16)
    policy->starved_until_ms = uv_now(policy->lua->loop) + REST_MS;
}
