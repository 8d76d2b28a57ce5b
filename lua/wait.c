/* SPDX-License-Identifier: MIT */
/*
 * Waiting. A C function that waits yields a mark that only the engine knows.
 * Inside a coroutine of the script's own (a library's, say) the mark passes
 * through resume and wrap, which yield it in turn, up to the hook; what that
 * coroutine yields itself stays between it and who resumed it. The mark stays
 * on top of a waiting coroutine's stack: nobody else can resume it meanwhile.
 */
#include <math.h>
#include <stdio.h>

#include "private.h"

static const char mark = 'w';

bool relay__lua_is_waiting(lua_State *co) {
  return lua_status(co) == LUA_YIELD && lua_gettop(co) > 0 &&
         lua_touserdata(co, -1) == (void *)&mark;
}

struct task *relay__lua_wait_begin(lua_State *L, const char *what) {
  const struct policy *policy = relay__lua_policy_of(L);
  struct task *task = policy->current;

  if (task == NULL || policy->is_stuck || !lua_isyieldable(L)) {
    luaL_error(L, "%s cannot wait here", what);
    return NULL; /* never: it has raised */
  }
  /* Resumed by another than us, a host's coroutine.resume or a module in C,
     which would take the mark for a yield of the coroutine's own. */
  if (L != policy->thread)
    luaL_error(L,
               policy->lua->state != NULL
                   ? "%s cannot wait in a coroutine within a hook"
                   : "%s cannot wait in a coroutine that a C module resumes",
               what);
  relay__lua_task_end_wait(task);
  return task;
}

int relay__lua_wait(lua_State *L, lua_KContext context, lua_KFunction then) {
  lua_pushlightuserdata(L, (void *)&mark);
  return lua_yieldk(L, 1, context, then);
}

/* Nothing was raised, so nothing else says where. */
void relay__lua_blame_yield(const struct task *task) {
  lua_Debug at;
  int level;

  at.currentline = -1;
  for (level = 0; at.currentline < 0; level++)
    if (lua_getstack(task->co, level, &at) == 0)
      break;
    else
      lua_getinfo(task->co, "Sl", &at);
  if (at.currentline >= 0)
    snprintf(task->policy->error, ERROR_MAX, "%s:%d: a hook cannot yield",
             at.short_src, at.currentline);
  else
    snprintf(task->policy->error, ERROR_MAX, "a hook cannot yield");
}

/* ---- sleep ------------------------------------------------------------ */

uint64_t relay__lua_check_ms(lua_State *L, int index) {
  lua_Number seconds = luaL_checknumber(L, index);

  luaL_argcheck(L, seconds >= 0 && seconds < 1e9, index,
                "not a number of seconds");
  return (uint64_t)ceil(seconds * 1000);
}

static int after_sleep(lua_State *L, int status, lua_KContext context) {
  (void)L;
  (void)status;
  (void)context;
  return 0;
}

int relay__lua_sleep(lua_State *L) {
  uint64_t ms = relay__lua_check_ms(L, 1);
  struct task *task = relay__lua_wait_begin(L, "relay.sleep");

  relay__lua_task_sleep(task, ms);
  return relay__lua_wait(L, 0, after_sleep);
}

/* ---- a script's own coroutines ---------------------------------------- */

static lua_State *check_coroutine(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);

  luaL_argexpected(L, co != NULL, 1, "coroutine");
  return co;
}

static int resume_on(lua_State *L, int status, lua_KContext context);

/* What `co` cannot yield through L, it may not wait for. */
static int enter(lua_State *L, lua_State *co, int count, int *results) {
  struct policy *policy = relay__lua_policy_of(L);
  lua_State *thread = policy->thread;
  bool is_stuck = policy->is_stuck;
  int status;

  policy->thread = co;
  policy->is_stuck = is_stuck || !lua_isyieldable(L) || L != thread;
  status = lua_resume(co, L, count, results);
  policy->thread = thread;
  policy->is_stuck = is_stuck;
  return status;
}

/* Whether it died of the hook that ends an entry. Hooks are off in it since,
   so its to-be-closed variables could run for ever: they are left alone. */
static bool ran_out_of_time(lua_State *co) {
  return lua_status(co) != LUA_OK && lua_status(co) != LUA_YIELD &&
         lua_gethookcount(co) == 1;
}

/* Resumes `co` with `count` arguments on its stack. -1: it failed, the error
   is on top of L; else its results are. */
static int resume(lua_State *L, lua_State *co, int count, lua_KContext wraps) {
  int results;
  int status = enter(L, co, count, &results);

  if (status == LUA_YIELD && relay__lua_is_waiting(co)) {
    lua_settop(L, 1);
    lua_pushlightuserdata(L, (void *)&mark);
    return lua_yieldk(L, 1, wraps, resume_on);
  }
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, results + 1)) {
    lua_pop(co, results);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, results);
  return results;
}

/* What resume and wrap return. */
static int deliver(lua_State *L, lua_State *co, int results, bool wraps) {
  if (results >= 0 && wraps)
    return results;
  if (results >= 0) {
    lua_pushboolean(L, 1);
    lua_insert(L, -(results + 1));
    return results + 1;
  }
  if (!wraps) {
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
  }
  if (lua_status(co) != LUA_OK && lua_status(co) != LUA_YIELD &&
      !ran_out_of_time(co)) {
    relay__lua_close_thread(co, L);
    lua_xmove(co, L, 1); /* the error, or one of closing its variables */
  }
  if (lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

/* L's stack: the coroutine at 1. Its wait is over. */
static int resume_on(lua_State *L, int status, lua_KContext wraps) {
  lua_State *co = lua_tothread(L, 1);

  (void)status;
  lua_settop(L, 1);
  lua_pop(co, 1); /* the mark */
  return deliver(L, co, resume(L, co, 0, wraps), wraps != 0);
}

static int resume_first(lua_State *L, lua_State *co, lua_KContext wraps) {
  int count = lua_gettop(L) - 1;
  int results = -1;

  if (relay__lua_is_waiting(co))
    lua_pushliteral(L, "cannot resume a coroutine that waits");
  else if (!lua_checkstack(co, count))
    lua_pushliteral(L, "too many arguments to resume");
  else if (lua_status(co) == LUA_OK && lua_gettop(co) == 0)
    lua_pushliteral(L, "cannot resume dead coroutine");
  else {
    lua_xmove(L, co, count);
    results = resume(L, co, count, wraps);
  }
  return deliver(L, co, results, wraps != 0);
}

static int coroutine_resume(lua_State *L) {
  return resume_first(L, check_coroutine(L), 0);
}

static int call_wrapped(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  return resume_first(L, lua_tothread(L, 1), 1);
}

static int coroutine_wrap(lua_State *L) {
  lua_State *co;

  luaL_checktype(L, 1, LUA_TFUNCTION);
  co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, call_wrapped, 1);
  return 1;
}

static int coroutine_close(lua_State *L) {
  if (relay__lua_is_waiting(check_coroutine(L)))
    return luaL_error(L, "cannot close a coroutine that waits");
  if (ran_out_of_time(lua_tothread(L, 1))) {
    lua_pushboolean(L, 0);
    lua_pushliteral(L, "it ran out of CPU time");
    return 2;
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

void relay__lua_open_coroutine(lua_State *L) {
  lua_getglobal(L, "coroutine");
  lua_pushcfunction(L, coroutine_resume);
  lua_setfield(L, -2, "resume");
  lua_pushcfunction(L, coroutine_wrap);
  lua_setfield(L, -2, "wrap");
  lua_getfield(L, -1, "close");
  lua_pushcclosure(L, coroutine_close, 1);
  lua_setfield(L, -2, "close");
  lua_pop(L, 1);
}
