/* SPDX-License-Identifier: MIT */
/*
 * Options and names of sockets. What the system lacks is an unsupported
 * option, as with LuaSocket.
 */
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "socket.h"

enum type { BOOLEAN, NUMBER, LINGER, ERROR };
enum use { GET = 1, SET = 2, BOTH = GET | SET };

struct option {
  const char *name;
  enum type type;
  enum use use;
  int level;
  int number;
};

static const struct option options[] = {
    {"keepalive", BOOLEAN, BOTH, SOL_SOCKET, SO_KEEPALIVE},
    {"reuseaddr", BOOLEAN, BOTH, SOL_SOCKET, SO_REUSEADDR},
#ifdef SO_REUSEPORT
    {"reuseport", BOOLEAN, BOTH, SOL_SOCKET, SO_REUSEPORT},
#endif
    {"tcp-nodelay", BOOLEAN, BOTH, IPPROTO_TCP, TCP_NODELAY},
#ifdef TCP_KEEPIDLE
    {"tcp-keepidle", NUMBER, BOTH, IPPROTO_TCP, TCP_KEEPIDLE},
#endif
#ifdef TCP_KEEPCNT
    {"tcp-keepcnt", NUMBER, BOTH, IPPROTO_TCP, TCP_KEEPCNT},
#endif
#ifdef TCP_KEEPINTVL
    {"tcp-keepintvl", NUMBER, BOTH, IPPROTO_TCP, TCP_KEEPINTVL},
#endif
    {"linger", LINGER, BOTH, SOL_SOCKET, SO_LINGER},
    {"error", ERROR, GET, SOL_SOCKET, SO_ERROR},
    {"recv-buffer-size", NUMBER, BOTH, SOL_SOCKET, SO_RCVBUF},
    {"send-buffer-size", NUMBER, BOTH, SOL_SOCKET, SO_SNDBUF},
    {"ipv6-v6only", BOOLEAN, SET, IPPROTO_IPV6, IPV6_V6ONLY},
#ifdef TCP_DEFER_ACCEPT
    {"tcp-defer-accept", NUMBER, SET, IPPROTO_TCP, TCP_DEFER_ACCEPT},
#endif
#ifdef TCP_FASTOPEN
    {"tcp-fastopen", NUMBER, SET, IPPROTO_TCP, TCP_FASTOPEN},
#endif
#ifdef TCP_FASTOPEN_CONNECT
    {"tcp-fastopen-connect", NUMBER, SET, IPPROTO_TCP, TCP_FASTOPEN_CONNECT},
#endif
};

static const struct option *check_option(lua_State *L, enum use use) {
  const char *name = luaL_checkstring(L, 2);
  size_t i;

  for (i = 0; i < sizeof(options) / sizeof(*options); i++)
    if (strcmp(options[i].name, name) == 0 && (options[i].use & use) != 0)
      return &options[i];
  luaL_argerror(L, 2, lua_pushfstring(L, "unsupported option `%s'", name));
  return NULL;
}

/* ---- setoption -------------------------------------------------------- */

static int clamp(lua_Number number, int most) {
  return number > most ? most : number > -1 ? (int)number : -1;
}

static int set(lua_State *L, const struct socket *s,
               const struct option *option, const void *value, size_t size) {
  if (setsockopt(s->fd, option->level, option->number, value,
                 (socklen_t)size) != 0) {
    lua_pushnil(L);
    lua_pushliteral(L, "setsockopt failed");
    return 2;
  }
  lua_pushnumber(L, 1);
  return 1;
}

static void check_linger(lua_State *L, struct linger *linger) {
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_getfield(L, 3, "on");
  luaL_argcheck(L, lua_isboolean(L, -1), 3, "boolean 'on' field expected");
  linger->l_onoff = lua_toboolean(L, -1);
  lua_getfield(L, 3, "timeout");
  luaL_argcheck(L, lua_isnumber(L, -1), 3, "number 'timeout' field expected");
  linger->l_linger = clamp(lua_tonumber(L, -1), USHRT_MAX);
}

int relay__lua_socket_setoption(lua_State *L) {
  const struct socket *s = relay__lua_socket_check(L, NULL);
  const struct option *option = check_option(L, SET);
  struct linger linger;
  int number;

  if (option->type == LINGER) {
    check_linger(L, &linger);
    return set(L, s, option, &linger, sizeof(linger));
  }
  if (option->type == BOOLEAN) {
    luaL_checktype(L, 3, LUA_TBOOLEAN);
    number = lua_toboolean(L, 3);
  } else {
    number = clamp(lua_tonumber(L, 3), INT_MAX);
  }
  return set(L, s, option, &number, sizeof(number));
}

/* ---- getoption -------------------------------------------------------- */

int relay__lua_socket_getoption(lua_State *L) {
  const struct socket *s = relay__lua_socket_check(L, NULL);
  const struct option *option = check_option(L, GET);
  struct linger linger = {0, 0};
  int number = 0;
  bool lingers = option->type == LINGER;
  socklen_t size = lingers ? sizeof(linger) : sizeof(number);

  if (getsockopt(s->fd, option->level, option->number,
                 lingers ? (void *)&linger : (void *)&number, &size) != 0) {
    lua_pushnil(L);
    lua_pushliteral(L, "getsockopt failed");
    return 2;
  }
  if (lingers) {
    lua_createtable(L, 0, 2);
    lua_pushboolean(L, linger.l_onoff);
    lua_setfield(L, -2, "on");
    lua_pushinteger(L, linger.l_linger);
    lua_setfield(L, -2, "timeout");
  } else if (option->type == BOOLEAN) {
    lua_pushboolean(L, number);
  } else if (option->type == NUMBER) {
    lua_pushnumber(L, number);
  } else {
    lua_pushstring(L, relay__lua_socket_error(number));
  }
  return 1;
}

/* ---- names ------------------------------------------------------------ */

typedef int (*name_fn)(int fd, struct sockaddr *address, socklen_t *size);

/* The port is a number of a peer and a string of one's own: LuaSocket's way. */
static int push_name(lua_State *L, const struct socket *s, name_fn ask,
                     bool of_peer) {
  struct sockaddr_storage address;
  struct sockaddr *generic = (struct sockaddr *)&address;
  socklen_t size = sizeof(address);
  char host[NI_MAXHOST], port[NI_MAXSERV];
  int err;

  if (ask(s->fd, generic, &size) != 0)
    return relay__lua_socket_fail(L, s, errno);
  err = getnameinfo(generic, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV);
  if (err != 0) {
    lua_pushnil(L);
    lua_pushstring(L, gai_strerror(err));
    return 2;
  }
  lua_pushstring(L, host);
  if (of_peer)
    lua_pushinteger(L, strtol(port, NULL, 10));
  else
    lua_pushstring(L, port);
  lua_pushstring(L, s->family == AF_INET    ? "inet"
                    : s->family == AF_INET6 ? "inet6"
                                            : "unspec");
  return 3;
}

int relay__lua_socket_getpeername(lua_State *L) {
  return push_name(L, relay__lua_socket_check(L, NULL), getpeername, true);
}

int relay__lua_socket_getsockname(lua_State *L) {
  return push_name(L, relay__lua_socket_check(L, NULL), getsockname, false);
}
