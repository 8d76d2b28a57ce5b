/* SPDX-License-Identifier: MIT */
/*
 * The loop of luv, which luv makes for itself, nested in the relay's. Ours
 * watches its descriptor and its next time-out, and gives it a turn, without
 * waiting, when either is there or the script ran: it may have begun something.
 *
 * Law: that loop is touched by luv's own functions only, so nothing of luv is
 * linked. What luv calls back runs as a task, and its error goes to the log.
 * Within luv no allocation fails for the cap on memory, as it would not survive
 * that; the cap is back where the script's own code runs.
 */
#include <stdlib.h>
#include <string.h>

#include "luv.h"

/* What a turn that called back is followed by at once, so often, if more is
   due: what was begun there is known to the kernel only after one. */
#define TURNS_MAX 4

void relay__lua_luv_push(lua_State *L, const struct luv *luv,
                         const char *name) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, luv->functions);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
}

/* ---- what luv calls back ---------------------------------------------- */

static void on_end(struct task *task) {
  if (task->failed)
    relay__lua_log_failure(task->policy, "luv");
  relay__lua_task_release(task);
}

/* The function and `count` arguments are on top. */
static void start_task(lua_State *L, struct policy *policy, int count) {
  static const char text[] = "not enough memory to call back";
  struct task *task = relay__lua_task_take(policy, HOOK_NONE);

  if (task == NULL || !lua_checkstack(task->co, count + 3)) {
    if (task != NULL)
      relay__lua_task_release(task);
    lua_pop(L, count + 1);
    memcpy(policy->error, text, sizeof(text));
    relay__lua_log_failure(policy, "luv");
    return;
  }
  lua_xmove(L, task->co, count + 1);
  task->on_end = on_end;
  policy->uncapped = false;
  relay__lua_task_start(task);
  policy->uncapped = true;
}

/* For uv.walk, which calls back before it returns. */
static void call_in_place(lua_State *L, struct policy *policy, int count) {
  int handler = lua_gettop(L) - count;

  lua_pushcfunction(L, relay__lua_traceback);
  lua_insert(L, handler);
  if (lua_pcall(L, count, 0, handler) != LUA_OK) {
    relay__lua_keep_error(policy, L);
    relay__lua_log_failure(policy, "luv");
  }
  lua_settop(L, handler - 1);
}

int relay__lua_luv_call(lua_State *L, int count, int results, int flags) {
  struct policy *policy = relay__lua_policy_of(L);
  struct luv *luv = policy->luv;

  (void)results; /* it never wants any */
  (void)flags;
  if (luv == NULL) { /* its own finalizers run: nobody is called any more */
    lua_pop(L, count + 1);
    return 0;
  }
  luv->again = true;
  /* luv itself calls back on the main state; a walk comes on the task's own. */
  if (!luv->turning || L != policy->L)
    call_in_place(L, policy, count);
  else if (luv->closing)
    lua_pop(L, count + 1);
  else
    start_task(L, policy, count);
  return 0;
}

/* ---- turns ------------------------------------------------------------ */

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

void relay__lua_luv_keep_alive(lua_State *L, const struct luv *luv) {
  relay__lua_luv_push(L, luv, "new_async");
  lua_pushcfunction(L, nothing);
  lua_call(L, 1, 0);
}

static int turn(lua_State *L) {
  struct luv *luv = lua_touserdata(L, 1);

  relay__lua_luv_push(L, luv, "run");
  lua_pushliteral(L, "nowait");
  lua_call(L, 1, 1);
  luv->alive = lua_toboolean(L, -1);
  if (!luv->alive && !luv->closing) /* the script has closed it */
    relay__lua_luv_keep_alive(L, luv);
  relay__lua_luv_push(L, luv, "backend_timeout");
  lua_call(L, 0, 1);
  luv->timeout = (int)lua_tointeger(L, -1);
  return 0;
}

bool relay__lua_luv_enter(struct luv *luv, lua_CFunction body) {
  struct policy *policy = luv->policy;
  int status;

  policy->uncapped = true;
  status = relay__lua_protect(policy, body, luv, policy->lua->options.load_ms);
  policy->uncapped = false;
  return status == LUA_OK;
}

static void on_due(uv_timer_t *timer) {
  relay__lua_luv_touch(((struct luv *)timer->data)->policy);
}

static void take_turns(struct luv *luv) {
  int turns = 0;

  do {
    luv->again = false;
    luv->turning = true;
    if (!relay__lua_luv_enter(luv, turn))
      relay__lua_log_failure(luv->policy, "luv");
    luv->turning = false;
  } while (luv->again && luv->timeout == 0 && ++turns < TURNS_MAX);
  if (luv->timeout < 0)
    uv_timer_stop(&luv->timer);
  else
    uv_timer_start(&luv->timer, on_due, (uint64_t)luv->timeout, 0);
}

/* ---- closing ---------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle) {
  struct luv *luv = handle->data;
  struct policy *policy = luv->policy;

  if (--luv->handles != 0)
    return;
  free(luv);
  relay__lua_policy_unhold(policy);
}

/* Nothing is left on luv's loop. Ours lets go of its descriptor before the
   state closes it. */
static void finish(struct luv *luv) {
  struct policy *policy = luv->policy;

  policy->luv = NULL;
  luv->handles = 2;
  if (luv->polling) {
    luv->handles++;
    uv_close((uv_handle_t *)&luv->poll, on_handle_closed);
  }
  uv_close((uv_handle_t *)&luv->prepare, on_handle_closed);
  uv_close((uv_handle_t *)&luv->timer, on_handle_closed);
  relay__lua_policy_end(policy);
}

/* Upvalue 1: struct luv. */
static int close_handle(lua_State *L) {
  const struct luv *luv = lua_touserdata(L, lua_upvalueindex(1));

  relay__lua_luv_push(L, luv, "is_closing");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  if (lua_toboolean(L, -1))
    return 0;
  relay__lua_luv_push(L, luv, "close");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 0);
  return 0;
}

static int close_handles(lua_State *L) {
  struct luv *luv = lua_touserdata(L, 1);

  relay__lua_luv_push(L, luv, "walk");
  lua_pushlightuserdata(L, luv);
  lua_pushcclosure(L, close_handle, 1);
  lua_call(L, 1, 0);
  return 0;
}

/* A request that a thread works on (a name being looked up) cannot be taken
   back: then the loop goes on until it is done. */
void relay__lua_luv_close(struct policy *policy) {
  struct luv *luv = policy->luv;

  luv->closing = true;
  if (luv->functions != LUA_NOREF) {
    relay__lua_luv_enter(luv, close_handles);
    take_turns(luv);
  }
  if (!luv->alive || !luv->polling)
    finish(luv);
}

/* ---- nesting ---------------------------------------------------------- */

/* Right before the relay's loop waits, and nowhere else: so a timer of 0 is due
   once in each of its turns. */
static void on_prepare(uv_prepare_t *prepare) {
  struct luv *luv = prepare->data;

  uv_prepare_stop(prepare);
  take_turns(luv);
  if (luv->closing && !luv->alive)
    finish(luv);
}

void relay__lua_luv_touch(struct policy *policy) {
  struct luv *luv = policy->luv;

  if (luv != NULL && luv->polling && !luv->turning)
    uv_prepare_start(&luv->prepare, on_prepare);
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  (void)status;
  (void)events;
  relay__lua_luv_touch(((struct luv *)poll->data)->policy);
}

struct luv *relay__lua_luv_new(struct policy *policy) {
  struct luv *luv = calloc(1, sizeof(*luv));

  if (luv == NULL)
    return NULL;
  luv->policy = policy;
  luv->functions = luv->module = LUA_NOREF;
  luv->timeout = -1;
  uv_prepare_init(policy->lua->loop, &luv->prepare);
  uv_timer_init(policy->lua->loop, &luv->timer);
  luv->prepare.data = luv->timer.data = luv;
  policy->handles++;
  return luv;
}

void relay__lua_luv_nest(lua_State *L, struct luv *luv) {
  int err;

  relay__lua_luv_push(L, luv, "backend_fd");
  lua_call(L, 0, 1);
  err = uv_poll_init(luv->policy->lua->loop, &luv->poll,
                     (int)lua_tointeger(L, -1));
  if (err != 0)
    luaL_error(L, "luv cannot be used: %s", uv_strerror(err));
  luv->poll.data = luv;
  uv_poll_start(&luv->poll, UV_READABLE, on_ready);
  luv->polling = true;
}
