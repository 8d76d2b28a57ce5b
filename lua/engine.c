/* SPDX-License-Identifier: MIT */
/*
 * A Lua state: whose it is, the way into it, and what is left of an error.
 * limits.c has how much memory and time it may take.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

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

/* A state of ours is told by its allocator, which has the policy: asked for all
   the time, and a look into the registry costs more. */
static struct policy *policy_of_own(lua_State *L) {
  void *data;

  return lua_getallocf(L, &data) == relay__lua_allocate ? data : NULL;
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
  policy->L = lua->state != NULL ? lua->state
                                 : lua_newstate(relay__lua_allocate, policy);
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
