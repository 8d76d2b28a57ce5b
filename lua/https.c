/* SPDX-License-Identifier: MIT */
/*
 * The module `ssl.https`, which LuaSocket's http asks for a way to connect when
 * it meets an https address. LuaSec has one of that name; this one verifies
 * unless it is told not to. Options are taken from the request, and else from
 * the fields of the module.
 */
#include "socket.h"

static const char *const option_names[] = {
    "verify", "cafile", "capath", "certificate", "key", "alpn", NULL};

/* Upvalue 1: options of TLS; nil: it goes through a proxy. */
static int create(lua_State *L) {
  if (lua_isnil(L, lua_upvalueindex(1))) {
    lua_pushnil(L);
    lua_pushliteral(L, "https through a proxy is not supported");
    return 2;
  }
  relay__lua_socket_push(L, "master");
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_setiuservalue(L, -2, USER_TLS);
  return 1;
}

static bool has_proxy(lua_State *L) {
  bool has = lua_getfield(L, 1, "proxy") != LUA_TNIL;

  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "socket.http") == LUA_TTABLE)
    has = lua_getfield(L, -1, "PROXY") != LUA_TNIL || has;
  lua_settop(L, 1);
  return has;
}

/* (request): what http calls for a socket. Upvalue 1: the module. */
static int https_tcp(lua_State *L) {
  int i;

  lua_settop(L, 1);
  if (lua_isnil(L, 1)) {
    lua_newtable(L);
    lua_replace(L, 1);
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  if (has_proxy(L)) {
    lua_pushnil(L);
    lua_pushcclosure(L, create, 1);
    return 1;
  }
  lua_newtable(L);
  for (i = 0; option_names[i] != NULL; i++) {
    if (lua_getfield(L, 1, option_names[i]) == LUA_TNIL) {
      lua_pop(L, 1);
      lua_getfield(L, lua_upvalueindex(1), option_names[i]);
    }
    lua_setfield(L, -2, option_names[i]);
  }
  lua_pushcclosure(L, create, 1);
  return 1;
}

static int pass(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  return lua_gettop(L);
}

/* As http.request. */
static int https_request(lua_State *L) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "socket.http");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "request");
  lua_insert(L, 1);
  lua_pop(L, 1);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, pass);
  return pass(L, LUA_OK, 0);
}

int relay__lua_open_https(lua_State *L) {
  lua_createtable(L, 0, 2);
  lua_pushvalue(L, -1);
  lua_pushcclosure(L, https_tcp, 1);
  lua_setfield(L, -2, "tcp");
  lua_pushcfunction(L, https_request);
  lua_setfield(L, -2, "request");
  return 1;
}
