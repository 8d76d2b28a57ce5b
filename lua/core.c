/* SPDX-License-Identifier: MIT */
/*
 * The module `socket.core`, as LuaSocket's own files expect it. They and all
 * that is written for them find this one; the C modules that would hold up the
 * relay cannot be loaded.
 */
#include <limits.h>
#include <math.h>
#include <sys/select.h>
#include <sys/time.h>

#include "socket.h"

/* What LuaSocket 3.1 calls itself. */
#define LUASOCKET_VERSION "LuaSocket 3.0.0"

/* ---- functions -------------------------------------------------------- */

static int core_gettime(lua_State *L) {
  struct timeval now;

  gettimeofday(&now, NULL);
  lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_usec / 1e6);
  return 1;
}

static int after_sleep(lua_State *L, int status, lua_KContext context) {
  (void)L;
  (void)status;
  (void)context;
  return 0;
}

static int core_sleep(lua_State *L) {
  lua_Number seconds = fmin(fmax(luaL_checknumber(L, 1), 0), INT_MAX);
  struct task *task = relay__lua_wait_begin(L, "socket.sleep");

  relay__lua_task_sleep(task, (uint64_t)ceil(seconds * 1000));
  return relay__lua_wait(L, 0, after_sleep);
}

static int core_skip(lua_State *L) {
  lua_Integer count = luaL_checkinteger(L, 1);
  lua_Integer left = lua_gettop(L) - 1;

  if (count < 0)
    count = 0;
  return count < left ? (int)(left - count) : 0;
}

static int core_udp(lua_State *L) {
  return luaL_error(L, "a policy has no UDP sockets");
}

/* ---- the module ------------------------------------------------------- */

static int open_core(lua_State *L) {
  static const luaL_Reg functions[] = {{"tcp", relay__lua_tcp},
                                       {"tcp4", relay__lua_tcp4},
                                       {"tcp6", relay__lua_tcp6},
                                       {"connect", relay__lua_connect},
                                       {"select", relay__lua_select},
                                       {"sleep", core_sleep},
                                       {"gettime", core_gettime},
                                       {"skip", core_skip},
                                       {"newtry", relay__lua_newtry},
                                       {"protect", relay__lua_protect_function},
                                       {"udp", core_udp},
                                       {"udp4", core_udp},
                                       {"udp6", core_udp},
                                       {NULL, NULL}};

  luaL_newlib(L, functions);
  relay__lua_open_dns(L);
  lua_setfield(L, -2, "dns");
  lua_pushliteral(L, LUASOCKET_VERSION);
  lua_setfield(L, -2, "_VERSION");
  lua_pushinteger(L, FD_SETSIZE);
  lua_setfield(L, -2, "_SETSIZE");
  lua_pushinteger(L, -1);
  lua_setfield(L, -2, "_SOCKETINVALID");
  return 1;
}

static int refuse(lua_State *L) {
  return luaL_error(L,
                    "module '%s' would hold up the relay: use relay.tcp, and "
                    "starttls for TLS",
                    luaL_checkstring(L, 1));
}

void relay__lua_open_sockets(lua_State *L) {
  static const luaL_Reg modules[] = {{"socket.core", open_core},
                                     {"ssl.https", relay__lua_open_https},
                                     {"socket.unix", refuse},
                                     {"socket.serial", refuse},
                                     {"ssl", refuse},
                                     {"ssl.core", refuse},
                                     {NULL, NULL}};

  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "relay");
  lua_pushcfunction(L, relay__lua_tcp);
  lua_setfield(L, -2, "tcp");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  luaL_setfuncs(L, modules, 0);
  lua_pop(L, 3);
}
