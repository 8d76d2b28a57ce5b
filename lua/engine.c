/* SPDX-License-Identifier: MIT */
/*
 * A Lua state and its limits. Memory is counted where it is allocated; time is
 * counted by a hook at every 1 000 instructions and at each large allocation,
 * against the thread's CPU clock, which is first read there: a short entry
 * costs no clock at all. Once time is up the hook comes at every instruction,
 * so no pcall of the script outlives it.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "private.h"

#define STEP 1000

/* What is made of so many bytes is worth a look at the clock. */
#define LARGE_BYTES 32768

#ifdef RELAY_LUA_STRESS
#define EXTRA_MS 200 /* the collector's time is the script's */
#define ALLOCATE allocate_stressed
#define STRESS_BYTES (256 << 10)
#else
#define EXTRA_MS 0
#define ALLOCATE allocate
#endif

const char *const relay__lua_hook_names[HOOK_COUNT + 2] = {
#define HOOK_NAME(upper, lower) #lower,
    HOOK_MAP(HOOK_NAME)
#undef HOOK_NAME
        NULL,
    NULL};

/* ---- whose state it is ------------------------------------------------- */

static const char owner;

void relay__lua_own(lua_State *L, struct relay_lua *lua) {
  if (lua != NULL)
    lua_pushlightuserdata(L, lua);
  else
    lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &owner);
}

static lua_Alloc allocator(void);

/* A state of ours is told by its allocator, which has the policy: asked for all
   the time, and a look into the registry costs more. */
static struct policy *policy_of_own(lua_State *L) {
  void *data;

  return lua_getallocf(L, &data) == allocator() ? data : NULL;
}

struct relay_lua *relay__lua_owner_of(lua_State *L) {
  const struct policy *policy = policy_of_own(L);
  struct relay_lua *lua;

  if (policy != NULL)
    return policy->lua;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &owner);
  lua = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return lua;
}

struct policy *relay__lua_policy_of(lua_State *L) {
  struct policy *policy = policy_of_own(L);
  struct relay_lua *lua;

  if (policy != NULL)
    return policy;
  lua = relay__lua_owner_of(L);
  if (lua != NULL && lua->running != NULL)
    return lua->running;
  if (lua != NULL && lua->policy != NULL)
    return lua->policy;
  luaL_error(L, "there is no policy any more");
  return NULL;
}

struct policy *relay__lua_enter(struct policy *policy) {
  struct policy *before = policy->lua->running;

  policy->lua->running = policy;
  policy->lua->inside++;
  return before;
}

void relay__lua_leave(struct policy *policy, struct policy *before) {
  policy->lua->inside--;
  policy->lua->running = before;
}

/* ---- limits ----------------------------------------------------------- */

static void look_at_clock(struct policy *policy);

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
static void *allocate_stressed(void *data, void *block, size_t old_size,
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
#endif

#ifndef CLOCK_MONOTONIC_RAW
#define CLOCK_MONOTONIC_RAW CLOCK_MONOTONIC
#endif

static lua_Alloc allocator(void) {
  return ALLOCATE;
}

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

/* ---- errors ----------------------------------------------------------- */

int relay__lua_traceback(lua_State *L) {
  const char *text = luaL_tolstring(L, 1, NULL);

  luaL_traceback(L, L, text, 1);
  return 1;
}

void relay__lua_keep_error(struct policy *policy, lua_State *L) {
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1)
                                                    : "an error without text";
  size_t length = strlen(text);

  if (length >= sizeof(policy->error))
    length = sizeof(policy->error) - 1;
  memcpy(policy->error, text, length);
  policy->error[length] = '\0';
}

void relay__lua_first_line(char *text) {
  char *trace = strstr(text, "\nstack traceback:");

  if (trace != NULL)
    *trace = '\0';
}

void relay__lua_close_thread(lua_State *co, lua_State *from) {
#if LUA_VERSION_RELEASE_NUM >= 50406
  lua_closethread(co, from);
#else
  (void)from;
  lua_resetthread(co);
#endif
}

/* ---- entering --------------------------------------------------------- */

int relay__lua_protect(struct policy *policy, lua_CFunction body, void *data,
                       unsigned budget_ms) {
  lua_State *L = policy->L;
  struct policy *before = relay__lua_enter(policy);
  struct task *current = policy->current;
  struct budget budget = policy->budget;
  lua_State *thread = policy->thread;
  int top = lua_gettop(L);
  int status;

  policy->current = NULL;
  policy->thread = L;
  relay__lua_budget_begin(policy, budget_ms);
  relay__lua_budget_arm(policy, L);
  lua_pushcfunction(L, relay__lua_traceback);
  lua_pushcfunction(L, body);
  lua_pushlightuserdata(L, data);
  status = lua_pcall(L, 1, 0, top + 1);
  if (status != LUA_OK)
    relay__lua_keep_error(policy, L);
  lua_settop(L, top);
  policy->current = current;
  policy->thread = thread;
  policy->budget = budget;
  relay__lua_leave(policy, before);
  relay__lua_luv_touch(policy);
  if (policy->is_full)
    relay__lua_wake_soon(policy->lua);
  return status;
}

/* ---- life ------------------------------------------------------------- */

static int set_up(lua_State *L) {
  struct policy *policy = lua_touserdata(L, 1);

  lua_newtable(L);
  policy->boxes = luaL_ref(L, LUA_REGISTRYINDEX);
  if (policy->lua->state != NULL)
    return 0;
  relay__lua_own(L, policy->lua);
  relay__lua_sandbox(L, policy);
  return 0;
}

struct policy *relay__lua_policy_new(struct relay_lua *lua) {
  struct policy *policy = calloc(1, sizeof(*policy));
  size_t i;

  if (policy == NULL)
    return NULL;
  policy->lua = lua;
  for (i = 0; i < HOOK_COUNT; i++)
    policy->hooks[i] = LUA_NOREF;
  policy->boxes = LUA_NOREF;
  policy->classes = lua->classes;
  policy->L = lua->state != NULL ? lua->state : lua_newstate(ALLOCATE, policy);
  if (policy->L == NULL) {
    free(policy);
    return NULL;
  }
  uv_timer_init(lua->loop, &policy->drain);
  policy->drain.data = policy;
  policy->handles = 1;
  lua->policies++;
  if (relay__lua_protect(policy, set_up, policy, lua->options.load_ms) != 0) {
    relay__lua_policy_close(policy);
    return NULL;
  }
  return policy;
}

void relay__lua_policy_unhold(struct policy *policy) {
  struct relay_lua *lua = policy->lua;

  if (--policy->handles != 0 || !policy->closing)
    return;
  free(policy->options);
  free(policy->saved);
  free(policy);
  lua->policies--;
  relay__lua_check_closed(lua);
}

static void on_drain_closed(uv_handle_t *handle) {
  relay__lua_policy_unhold(handle->data);
}

void relay__lua_policy_close(struct policy *policy) {
  if (policy->closing)
    return;
  policy->closing = true;
  relay__lua_drop_spawned(policy);
  relay__lua_everies_close(policy);
  relay__lua_tasks_close(policy);
  if (policy->luv != NULL)
    relay__lua_luv_close(policy);
  else
    relay__lua_policy_end(policy);
}

/* Of a state of the host's nothing but our own values is given up. */
static void forget(struct policy *policy) {
  int i;

  for (i = 0; i < HOOK_COUNT; i++)
    luaL_unref(policy->L, LUA_REGISTRYINDEX, policy->hooks[i]);
  luaL_unref(policy->L, LUA_REGISTRYINDEX, policy->boxes);
}

void relay__lua_policy_end(struct policy *policy) {
  struct policy *before = relay__lua_enter(policy); /* for finalizers */

  if (policy->lua->state != NULL)
    forget(policy);
  else
    lua_close(policy->L);
  relay__lua_leave(policy, before);
  policy->L = NULL;
  relay__lua_tls_close(policy);
  uv_close((uv_handle_t *)&policy->drain, on_drain_closed);
}
