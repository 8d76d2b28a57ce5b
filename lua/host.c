/* SPDX-License-Identifier: MIT */
/*
 * A Lua state of the host's. What is put there is a coroutine of ours, in which
 * all is entered that is no task, so that the host's stack and hooks are left
 * alone; the classes of our objects; and the module. All of it is taken out
 * again, and what a script kept of it raises an error from then on.
 */
#include "private.h"

/* Keys of the registry that classes have. */
static const char *const classes[] = {
    "relay.conn", "relay.agent", "relay.every", "relay.cidr", "relay.waker"};
#define CLASSES ((int)(sizeof(classes) / sizeof(*classes)))

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

/* (relay_lua, the table of hooks or nil) The module comes last: once it is
   there nothing fails. A first call is made in the coroutine, so that none
   after it needs memory to begin. */
static int borrow(lua_State *L) {
  struct relay_lua *lua = lua_touserdata(L, 1);
  lua_State *co = lua_newthread(L);

  lua->state_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua->state = co;
  lua_pushcfunction(co, nothing);
  if (lua_pcall(co, 0, 0, 0) != LUA_OK)
    return luaL_error(L, "not enough memory");
  relay__lua_own(L, lua);
  if (!lua_isnil(L, 2)) {
    lua_pushvalue(L, 2);
    lua->hooks_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "relay");
  lua->loaded_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  relay__lua_open(L);
  return 0;
}

int relay__lua_borrow(struct relay_lua *lua, lua_State *L) {
  bool has_script = lua->options.script != NULL;
  int top = lua_gettop(L);

  if (!has_script && (top == 0 || !lua_istable(L, -1)))
    return UV_EINVAL;
  if (!lua_checkstack(L, 4))
    return UV_ENOMEM;
  if (relay__lua_owner_of(L) != NULL)
    return UV_EBUSY;
  lua_pushcfunction(L, borrow);
  lua_pushlightuserdata(L, lua);
  if (has_script)
    lua_pushnil(L);
  else
    lua_pushvalue(L, top);
  if (lua_pcall(L, 2, 0, 0) == LUA_OK)
    return 0;
  lua_settop(L, top);
  return UV_ENOMEM;
}

/* (relay_lua, which: a class, or the module) What is there is written over,
   which takes no memory; only to look for what is not there may fail. */
static int take_out(lua_State *L) {
  struct relay_lua *lua = lua_touserdata(L, 1);
  lua_Integer which = lua_tointeger(L, 2);

  if (which < CLASSES) {
    lua_pushnil(L);
    lua_setfield(L, LUA_REGISTRYINDEX, classes[which]);
  } else if (lua->loaded_ref != LUA_NOREF) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_rawgeti(L, LUA_REGISTRYINDEX, lua->loaded_ref);
    lua_setfield(L, -2, "relay");
  }
  return 0;
}

void relay__lua_give_back(struct relay_lua *lua) {
  lua_State *L = lua->state;
  int i;

  if (L == NULL)
    return;
  for (i = 0; i <= CLASSES; i++) {
    lua_pushcfunction(L, take_out);
    lua_pushlightuserdata(L, lua);
    lua_pushinteger(L, i);
    (void)lua_pcall(L, 2, 0, 0);
    lua_settop(L, 0);
  }
  relay__lua_own(L, NULL);
  luaL_unref(L, LUA_REGISTRYINDEX, lua->classes.conn.ref);
  luaL_unref(L, LUA_REGISTRYINDEX, lua->classes.agent.ref);
  luaL_unref(L, LUA_REGISTRYINDEX, lua->hooks_ref);
  luaL_unref(L, LUA_REGISTRYINDEX, lua->loaded_ref);
  luaL_unref(L, LUA_REGISTRYINDEX, lua->state_ref);
  lua->state = NULL;
}
