/* SPDX-License-Identifier: MIT */
/*
 * A wait that the script ends itself: relay.wait(fn[, seconds]) calls fn with a
 * function, to be given to whatever calls back later, and waits until that is
 * called; what it is called with is what relay.wait returns. The first call
 * counts. It only marks the task, which goes on from the loop: so no hook runs
 * inside of whoever calls back. However relay.wait is left, by an error of fn
 * or by the end of the hook as well, the function it gave away is dead from
 * then.
 */
#include "private.h"

#define WAKER "relay.waker"

struct waker {
  struct task *task; /* while WAITING */
  enum { ASKING, WAITING, WOKEN, OVER } state;
  int count; /* of values, in the table that is user value 1 */
};

/* Woken, out of time, or killed: what comes later comes too late. */
static void on_wait_end(void *wait, bool killed) {
  struct waker *waker = wait;

  (void)killed;
  waker->task = NULL;
  if (waker->state == WAITING)
    waker->state = OVER;
}

/* The wait is left. */
static int end(lua_State *L) {
  struct waker *waker = lua_touserdata(L, 1);

  waker->state = OVER;
  return 0;
}

/* What fn is called with. Upvalue 1: the waker. */
static int wake(lua_State *L) {
  struct waker *waker = lua_touserdata(L, lua_upvalueindex(1));
  int i, count = lua_gettop(L);

  if (waker->state == WOKEN || waker->state == OVER) {
    lua_pushboolean(L, 0);
    return 1;
  }
  lua_createtable(L, count, 0);
  lua_insert(L, 1);
  for (i = count; i > 0; i--)
    lua_rawseti(L, 1, i);
  lua_setiuservalue(L, lua_upvalueindex(1), 1);
  waker->count = count;
  if (waker->state == WAITING)
    relay__lua_task_soon(waker->task);
  waker->state = WOKEN;
  lua_pushboolean(L, 1);
  return 1;
}

/* The stack: fn, seconds, the waker. */
static int deliver(lua_State *L) {
  struct waker *waker = lua_touserdata(L, 3);
  int i;

  if (waker->state != WOKEN) {
    lua_pushnil(L);
    lua_pushliteral(L, "timeout");
    return 2;
  }
  luaL_checkstack(L, waker->count + 1, "too many values");
  lua_getiuservalue(L, 3, 1);
  for (i = 1; i <= waker->count; i++)
    lua_rawgeti(L, 4, i);
  return waker->count;
}

static int after_wait(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  lua_settop(L, 3);
  return deliver(L);
}

/* fn has returned. */
static int wait_on(lua_State *L, int status, lua_KContext context) {
  struct waker *waker = lua_touserdata(L, 3);
  struct task *task;

  (void)status;
  if (waker->state == WOKEN)
    return deliver(L);
  task = relay__lua_wait_begin(L, "relay.wait");
  waker->state = WAITING;
  waker->task = task;
  task->on_wait_end = on_wait_end;
  task->wait = waker;
  if (context != 0)
    relay__lua_task_sleep(task, (uint64_t)context);
  return relay__lua_wait(L, 0, after_wait);
}

int relay__lua_wait_for(lua_State *L) {
  struct waker *waker;
  lua_KContext ms = 0;

  luaL_checktype(L, 1, LUA_TFUNCTION);
  if (!lua_isnoneornil(L, 2)) {
    ms = (lua_KContext)relay__lua_check_ms(L, 2);
    luaL_argcheck(L, ms != 0, 2, "it cannot be 0");
  }
  relay__lua_wait_begin(L, "relay.wait");
  lua_settop(L, 2);
  waker = lua_newuserdatauv(L, sizeof(*waker), 1);
  *waker = (struct waker){NULL, ASKING, 0};
  luaL_setmetatable(L, WAKER);
  lua_toclose(L, 3);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 3);
  lua_pushcclosure(L, wake, 1);
  lua_callk(L, 1, 0, ms, wait_on);
  return wait_on(L, LUA_OK, ms);
}

void relay__lua_open_waker(lua_State *L) {
  luaL_newmetatable(L, WAKER);
  lua_pushcfunction(L, end);
  lua_setfield(L, -2, "__close");
  lua_pop(L, 1);
}
