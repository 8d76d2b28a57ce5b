/* SPDX-License-Identifier: MIT */
/*
 * relay.sni, relay.http_host, relay.ssh: what a peek hook asks of the bytes it
 * was shown. A name; or nil: there is none; or false and how many bytes are
 * needed to tell.
 */
#include <ctype.h>

#include "peekers.h"
#include "private.h"

typedef int (*peek_fn)(const void *bytes, size_t count, struct span *found);

static int answer(lua_State *L, peek_fn peek, bool is_name) {
  size_t count, i;
  const char *bytes = luaL_checklstring(L, 1, &count);
  struct span found = {NULL, 0};
  int status = peek(bytes, count, &found);
  luaL_Buffer buffer;

  if (status < 0 && -status <= PEEK_MAX) {
    lua_pushboolean(L, 0);
    lua_pushinteger(L, -status);
    return 2;
  }
  if (status <= 0) {
    lua_pushnil(L);
    return 1;
  }
  luaL_buffinit(L, &buffer);
  for (i = 0; i < found.length; i++)
    luaL_addchar(&buffer, is_name ? (char)tolower((unsigned char)found.text[i])
                                  : found.text[i]);
  luaL_pushresult(&buffer);
  return 1;
}

static int api_sni(lua_State *L) {
  return answer(L, relay__lua_peek_sni, true);
}

static int api_http_host(lua_State *L) {
  return answer(L, relay__lua_peek_host, true);
}

static int api_ssh(lua_State *L) {
  return answer(L, relay__lua_peek_ssh, false);
}

void relay__lua_open_peek(lua_State *L) {
  static const luaL_Reg functions[] = {{"sni", api_sni},
                                       {"http_host", api_http_host},
                                       {"ssh", api_ssh},
                                       {NULL, NULL}};

  luaL_setfuncs(L, functions, 0);
}
