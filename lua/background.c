/* SPDX-License-Identifier: MIT */
/*
 * What a script runs beside its hooks: spawn, once, from the next turn of the
 * loop, and every, again and again until its function returns false. A run
 * that still waits when the next is due is not doubled.
 */
#include <stdlib.h>

#include "private.h"

#define EVERY "relay.every"
#define EVERIES_MAX 1000

/* How long spawned functions go on before others have their turn. */
#define TURN_NS 5000000

/* ---- spawn ------------------------------------------------------------ */

struct spawned {
  struct spawned *next;
  struct task *task;
};

static void on_end(struct task *task) {
  if (task->failed)
    relay__lua_log_failure(task->policy, "spawn");
  relay__lua_task_release(task);
}

int relay__lua_spawn(lua_State *L) {
  struct policy *policy = relay__lua_policy_of(L);
  struct relay_lua *lua = policy->lua;
  int count = lua_gettop(L);
  struct spawned *spawned;
  struct task *task;

  luaL_checktype(L, 1, LUA_TFUNCTION);
  if (policy->closing)
    return luaL_error(L, "the policy is closing");
  task = relay__lua_task_take(policy, HOOK_NONE);
  spawned = task != NULL ? malloc(sizeof(*spawned)) : NULL;
  if (spawned == NULL || !lua_checkstack(task->co, count + 2)) {
    free(spawned);
    if (task != NULL)
      relay__lua_task_release(task);
    return luaL_error(L, "not enough memory");
  }
  lua_xmove(L, task->co, count);
  task->on_end = on_end;
  spawned->task = task;
  spawned->next = NULL;
  *lua->spawned_end = spawned;
  lua->spawned_end = &spawned->next;
  relay__lua_wake_soon(lua);
  return 0;
}

/* Those that are there now, as far as a turn goes; the rest, and what they
   spawn, in the next. */
void relay__lua_run_spawned(struct relay_lua *lua) {
  struct spawned *list = lua->spawned, **end = lua->spawned_end;
  uint64_t began = uv_hrtime();

  lua->spawned = NULL;
  lua->spawned_end = &lua->spawned;
  while (list != NULL && uv_hrtime() - began < TURN_NS) {
    struct spawned *spawned = list;

    list = spawned->next;
    relay__lua_task_start(spawned->task);
    free(spawned);
  }
  if (list == NULL)
    return;
  *end = lua->spawned;
  if (lua->spawned == NULL)
    lua->spawned_end = end;
  lua->spawned = list;
  relay__lua_wake_soon(lua);
}

void relay__lua_drop_spawned(struct policy *policy) {
  struct relay_lua *lua = policy->lua;
  struct spawned **at = &lua->spawned;

  while (*at != NULL) {
    struct spawned *spawned = *at;

    if (spawned->task->policy != policy) {
      at = &spawned->next;
      continue;
    }
    *at = spawned->next;
    free(spawned);
  }
  lua->spawned_end = at;
}

/* ---- every ------------------------------------------------------------ */

struct every {
  struct policy *policy;
  struct every *next;
  uint64_t id;
  int ref; /* the function */
  bool running;
  uv_timer_t timer;
};

static void on_timer_closed(uv_handle_t *handle) {
  struct every *every = handle->data;
  struct policy *policy = every->policy;

  free(every);
  relay__lua_policy_unhold(policy);
}

static struct every **find(struct policy *policy, uint64_t id) {
  struct every **at = &policy->everies;

  while (*at != NULL && (*at)->id != id)
    at = &(*at)->next;
  return at;
}

static void stop(struct policy *policy, uint64_t id) {
  struct every **at = find(policy, id);
  struct every *every = *at;

  if (every == NULL)
    return;
  *at = every->next;
  policy->every_count--;
  luaL_unref(policy->L, LUA_REGISTRYINDEX, every->ref);
  uv_close((uv_handle_t *)&every->timer, on_timer_closed);
}

static void on_run_end(struct task *task) {
  struct policy *policy = task->policy;
  uint64_t id = task->subject;
  struct every *every = *find(policy, id);

  if (task->failed)
    relay__lua_log_failure(policy, "every");
  if (every != NULL)
    every->running = false;
  if (!task->failed && task->no_more)
    stop(policy, id);
  relay__lua_task_release(task);
}

static void on_due(uv_timer_t *timer) {
  struct every *every = timer->data;
  struct policy *policy = every->policy;
  struct task *task;

  if (every->running)
    return;
  task = relay__lua_task_take(policy, HOOK_NONE);
  if (task == NULL)
    return;
  lua_rawgeti(policy->L, LUA_REGISTRYINDEX, every->ref);
  lua_xmove(policy->L, task->co, 1);
  every->running = true;
  task->subject = every->id;
  task->on_end = on_run_end;
  relay__lua_task_start(task);
}

static int every_stop(lua_State *L) {
  const uint64_t *id = luaL_checkudata(L, 1, EVERY);

  stop(relay__lua_policy_of(L), *id);
  return 0;
}

int relay__lua_every(lua_State *L) {
  struct policy *policy = relay__lua_policy_of(L);
  uint64_t ms = relay__lua_check_ms(L, 1);
  uint64_t *id;
  struct every *every;
  int ref;

  luaL_argcheck(L, ms != 0, 1, "it cannot be 0");
  luaL_checktype(L, 2, LUA_TFUNCTION);
  if (policy->closing)
    return luaL_error(L, "the policy is closing");
  if (policy->every_count == EVERIES_MAX)
    return luaL_error(L, "relay.every: at most %d timers", EVERIES_MAX);
  id = lua_newuserdatauv(L, sizeof(*id), 0);
  luaL_setmetatable(L, EVERY);
  lua_pushvalue(L, 2);
  ref = luaL_ref(L, LUA_REGISTRYINDEX);
  every = calloc(1, sizeof(*every));
  if (every == NULL) {
    luaL_unref(L, LUA_REGISTRYINDEX, ref);
    return luaL_error(L, "not enough memory");
  }
  *id = every->id = ++policy->next_every;
  every->policy = policy;
  every->ref = ref;
  every->next = policy->everies;
  policy->everies = every;
  policy->every_count++;
  policy->handles++;
  uv_timer_init(policy->lua->loop, &every->timer);
  every->timer.data = every;
  uv_timer_start(&every->timer, on_due, relay__lua_lag_ms(policy->lua) + ms,
                 ms);
  return 1;
}

void relay__lua_everies_close(struct policy *policy) {
  while (policy->everies != NULL)
    stop(policy, policy->everies->id);
}

void relay__lua_open_every(lua_State *L) {
  luaL_newmetatable(L, EVERY);
  lua_newtable(L);
  lua_pushcfunction(L, every_stop);
  lua_setfield(L, -2, "stop");
  lua_setfield(L, -2, "__index");
  lua_pushstring(L, EVERY);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}
