/* SPDX-License-Identifier: MIT */
/*
 * LuaSocket's exceptions. `newtry` raises what is not true as the second value,
 * in a table that only `protect` knows and turns into nil and that value again.
 * Hooks may wait within both, and within a finalizer.
 */
#include "socket.h"

/* In the registry: the metatable of what is thrown. */
static const char thrown_key = 't';

static void push_thrown_class(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &thrown_key) != LUA_TNIL)
    return;
  lua_pop(L, 1);
  lua_createtable(L, 0, 1);
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &thrown_key);
}

/* ---- newtry ----------------------------------------------------------- */

static int throw(lua_State * L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, 1);
  push_thrown_class(L);
  lua_setmetatable(L, -2);
  return lua_error(L);
}

/* Upvalue 1: the finalizer, or nil. */
static int try(lua_State *L) {
  if (lua_toboolean(L, 1))
    return lua_gettop(L);
  lua_settop(L, 2);
  if (!lua_isnil(L, lua_upvalueindex(1))) {
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_callk(L, 0, 0, 0, throw);
  }
  return throw(L, LUA_OK, 0);
}

int relay__lua_newtry(lua_State *L) {
  lua_settop(L, 1);
  lua_pushcclosure(L, try, 1);
  return 1;
}

/* ---- protect ---------------------------------------------------------- */

static bool is_thrown(lua_State *L) {
  bool is = false;

  if (lua_istable(L, -1) && lua_getmetatable(L, -1)) {
    push_thrown_class(L);
    is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  return is;
}

static int after(lua_State *L, int status, lua_KContext context) {
  (void)context;
  if (status == LUA_OK || status == LUA_YIELD)
    return lua_gettop(L);
  if (!is_thrown(L))
    return lua_error(L);
  lua_pushnil(L);
  lua_rawgeti(L, -2, 1);
  return 2;
}

/* Upvalue 1: the function. */
static int call_protected(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  return after(L, lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, 0, after),
               0);
}

int relay__lua_protect_function(lua_State *L) {
  lua_settop(L, 1);
  lua_pushcclosure(L, call_protected, 1);
  return 1;
}
