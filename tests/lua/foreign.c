/* SPDX-License-Identifier: MIT */
/*
 * A module in C that resumes coroutines by itself, as schedulers do:
 *
 *   foreign.resume(co, ...)  as coroutine.resume of plain Lua
 */
#include <lauxlib.h>
#include <lua.h>

static int resume(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  int count = lua_gettop(L) - 1, results, status;

  luaL_argexpected(L, co != NULL, 1, "coroutine");
  luaL_argcheck(L, lua_checkstack(co, count), 1, "too many arguments");
  lua_xmove(L, co, count);
  status = lua_resume(co, L, count, &results);
  if (status != LUA_OK && status != LUA_YIELD)
    results = 1;
  luaL_checkstack(L, results + 1, NULL);
  lua_pushboolean(L, status == LUA_OK || status == LUA_YIELD);
  lua_xmove(co, L, results);
  return results + 1;
}

int luaopen_foreign(lua_State *L);

int luaopen_foreign(lua_State *L) {
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, resume);
  lua_setfield(L, -2, "resume");
  return 1;
}
