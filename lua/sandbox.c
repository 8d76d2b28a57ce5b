/* SPDX-License-Identifier: MIT */
/*
 * What of the standard library a script sees. It contains mistakes, not
 * malice: nothing here ends the process or loads bytecode, print goes to the
 * log, and no finalizer runs outside of the limits.
 */
#include <string.h>

#include <lualib.h>

#include "private.h"

/* Where Debian keeps pure Lua modules that it has up to 5.3 only. */
#define OLDER_PATH                                                             \
  "/usr/local/share/lua/5.3/?.lua;/usr/local/share/lua/5.3/?/init.lua;"        \
  "/usr/share/lua/5.3/?.lua;/usr/share/lua/5.3/?/init.lua"

static void remove_field(lua_State *L, const char *library, const char *name) {
  lua_getglobal(L, library);
  lua_pushnil(L);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

/* ---- functions that differ -------------------------------------------- */

static int safe_setmetatable(lua_State *L) {
  if (lua_type(L, 2) == LUA_TTABLE) {
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, 2) != LUA_TNIL)
      return luaL_error(L, "a policy cannot have finalizers (__gc)");
    lua_pop(L, 1);
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return 1;
}

/* The handler is not called once time is up: no hook would end it then. */
static int handle(lua_State *L) {
  if (relay__lua_policy_of(L)->budget.is_over)
    return 1;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return 1;
}

static int after_xpcall(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  return lua_gettop(L);
}

static int safe_xpcall(lua_State *L) {
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, handle, 1);
  lua_replace(L, 2);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, after_xpcall);
  return lua_gettop(L);
}

/* load, with mode "t" whatever was asked for. */
static int safe_load(lua_State *L) {
  bool has_env = lua_gettop(L) >= 4;

  lua_settop(L, has_env ? 4 : 3);
  lua_pushliteral(L, "t");
  lua_replace(L, 3);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, has_env ? 4 : 3, LUA_MULTRET);
  return lua_gettop(L);
}

static int safe_loadfile(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  bool has_env = lua_gettop(L) >= 3;

  if (luaL_loadfilex(L, path, "t") != LUA_OK) {
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  if (has_env) {
    lua_pushvalue(L, 3);
    if (lua_setupvalue(L, -2, 1) == NULL)
      lua_pop(L, 1);
  }
  return 1;
}

static int safe_dofile(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);

  lua_settop(L, 0);
  if (luaL_loadfilex(L, path, "t") != LUA_OK)
    return lua_error(L);
  lua_call(L, 0, LUA_MULTRET);
  return lua_gettop(L);
}

/* A policy called redis.lua hides the library of that name from itself. */
static bool is_policy(lua_State *L, const char *path) {
  const char *script = relay__lua_policy_of(L)->lua->script;

  if (strchr(script, '/') == NULL && strncmp(path, "./", 2) == 0)
    path += 2;
  return strcmp(path, script) == 0;
}

/* The searcher for Lua files. Upvalue 1: package. */
static int search_text(lua_State *L) {
  const char *name = luaL_checkstring(L, 1), *path;

  lua_getfield(L, lua_upvalueindex(1), "searchpath");
  lua_pushvalue(L, 1);
  lua_getfield(L, lua_upvalueindex(1), "path");
  lua_call(L, 2, 2);
  if (lua_isnil(L, -2))
    return 1; /* where it was looked for */
  path = lua_tostring(L, -2);
  if (is_policy(L, path))
    return luaL_error(L, "cannot load '%s': %s is the policy itself", name,
                      path);
  if (luaL_loadfilex(L, path, "t") != LUA_OK)
    return luaL_error(L, "cannot load '%s': %s", name, lua_tostring(L, -1));
  lua_pushstring(L, path);
  return 2;
}

/* ---- setting up ------------------------------------------------------- */

static void wrap_global(lua_State *L, const char *name, lua_CFunction with) {
  lua_getglobal(L, name);
  lua_pushcclosure(L, with, 1);
  lua_setglobal(L, name);
}

static void restrict_libraries(lua_State *L) {
  wrap_global(L, "setmetatable", safe_setmetatable);
  wrap_global(L, "xpcall", safe_xpcall);
  wrap_global(L, "load", safe_load);
  lua_register(L, "loadfile", safe_loadfile);
  lua_register(L, "dofile", safe_dofile);
  remove_field(L, "os", "exit");
  remove_field(L, "os", "execute");
  remove_field(L, "os", "setlocale");
  remove_field(L, "io", "popen");
  remove_field(L, "package", "loadlib");
  /* Files have a finalizer: it stays theirs. */
  luaL_getmetatable(L, LUA_FILEHANDLE);
  lua_pushliteral(L, LUA_FILEHANDLE);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "searchers");
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, search_text, 1);
  lua_rawseti(L, -2, 2);
  lua_pop(L, 2);
  /* debug: nothing but tracebacks. */
  lua_newtable(L);
  lua_getglobal(L, "debug");
  lua_getfield(L, -1, "traceback");
  lua_setfield(L, -3, "traceback");
  lua_pop(L, 1);
  lua_pushvalue(L, -1);
  lua_setglobal(L, "debug");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_insert(L, -2);
  lua_setfield(L, -2, "debug");
  lua_pop(L, 1);
}

/* The script's own folder first, then 5.4's modules, then 5.3's. */
static void set_path(lua_State *L, const char *script) {
  const char *slash = strrchr(script, '/');

  lua_getglobal(L, "package");
  if (slash != NULL)
    lua_pushlstring(L, script, (size_t)(slash - script));
  else
    lua_pushliteral(L, ".");
  lua_pushliteral(L, "/?.lua;");
  lua_getfield(L, -3, "path");
  lua_pushliteral(L, ";" OLDER_PATH);
  lua_concat(L, 4);
  lua_setfield(L, -2, "path");
  lua_pop(L, 1);
}

void relay__lua_open(lua_State *L) {
  relay__lua_open_objects(L);
  relay__lua_open_every(L);
  relay__lua_open_cidr(L);
  relay__lua_open_waker(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  relay__lua_open_api(L);
  lua_setfield(L, -2, "relay");
  lua_pop(L, 1);
}

void relay__lua_sandbox(lua_State *L, struct policy *policy) {
  luaL_openlibs(L);
  relay__lua_open_coroutine(L);
  set_path(L, policy->lua->script);
  lua_register(L, "print", relay__lua_print);
  if (!policy->lua->options.unsafe)
    restrict_libraries(L);
  relay__lua_open(L);
  relay__lua_open_sockets(L);
  relay__lua_open_luv(L);
}
