/* SPDX-License-Identifier: MIT */
/*
 * Sockets that listen for a script. They are its own affair: no lease, no
 * visitor and no policy stands behind them.
 */
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>

#include "lookup.h"
#include "socket.h"

static int bind_one(lua_State *L, struct socket *s,
                    const struct sockaddr_storage *address) {
  int outcome;

  if (s->fd < 0 || s->family != address->ss_family) {
    relay__lua_socket_close(s);
    outcome = relay__lua_socket_open(L, s, address->ss_family);
    if (outcome != IO_DONE)
      return outcome;
  }
  return bind(s->fd, (const struct sockaddr *)address,
              relay__lua_address_size(address)) == 0
             ? IO_DONE
             : errno;
}

int relay__lua_bind_first(lua_State *L, struct socket *s,
                          const struct addresses *found) {
  int outcome = EADDRNOTAVAIL, i;

  if (found->status != 0) {
    lua_pushnil(L);
    lua_pushstring(L, relay__lua_gai_error(found->status));
    return found->status;
  }
  for (i = 0; i < found->count && outcome != IO_DONE; i++)
    outcome = bind_one(L, s, &found->list[i]);
  if (outcome != IO_DONE)
    relay__lua_socket_fail(L, s, outcome);
  return outcome;
}

static int after_look_up(lua_State *L, int status, lua_KContext context) {
  struct socket *s = lua_touserdata(L, 1);

  (void)status;
  (void)context;
  if (relay__lua_bind_first(L, s, lua_touserdata(L, -1)) != IO_DONE)
    return 2;
  lua_pushnumber(L, 1);
  return 1;
}

int relay__lua_socket_bind(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, "master");
  const char *host = relay__lua_check_text(L, 2);
  struct query query = {.what = "tcp:bind",
                        .host = strcmp(host, "*") == 0 ? NULL : host,
                        .service = relay__lua_check_text(L, 3),
                        .hints = {.ai_socktype = SOCK_STREAM,
                                  .ai_family = s->family,
                                  .ai_flags = AI_PASSIVE}};

  lua_settop(L, 3);
  return relay__lua_look_up(L, &query, after_look_up);
}

int relay__lua_socket_listen(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, "master");
  int backlog = (int)luaL_optinteger(L, 2, 32);

  if (listen(s->fd, backlog) != 0)
    return relay__lua_socket_fail(L, s, errno);
  s->serves = true;
  relay__lua_socket_become(L, 1, "server");
  lua_pushnumber(L, 1);
  return 1;
}

/* ---- accept ----------------------------------------------------------- */

static int try_accept(struct socket *s, int *fd) {
  if (s->fd < 0)
    return IO_CLOSED;
  do
    *fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  while (*fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  if (*fd >= 0)
    return IO_DONE;
  return errno == EAGAIN || errno == EWOULDBLOCK ? IO_READ : errno;
}

/* The client is at 2, made beforehand: nothing can fail once it is accepted. */
static int accept_step(lua_State *L, int status, lua_KContext context) {
  struct socket *s = lua_touserdata(L, 1), *client = lua_touserdata(L, 2);
  int fd, outcome;

  (void)status;
  if (relay__lua_socket_is_another(s, context))
    return relay__lua_socket_fail(L, s, IO_CLOSED);
  outcome = try_accept(s, &fd);
  if (outcome == IO_READ && !relay__lua_socket_is_late(s, SIDE_READ))
    return relay__lua_socket_wait(L, s, SIDE_READ, IO_READ, "tcp:accept",
                                  accept_step);
  if (outcome == IO_READ)
    outcome = IO_TIMEOUT;
  if (outcome == IO_DONE)
    outcome = relay__lua_socket_adopt(L, client, fd);
  if (outcome != IO_DONE)
    return relay__lua_socket_fail(L, s, outcome);
  client->family = s->family;
  lua_settop(L, 2);
  return 1;
}

int relay__lua_socket_accept(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, "server");

  lua_settop(L, 1);
  relay__lua_socket_begin(L, s, SIDE_READ, "tcp:accept");
  relay__lua_socket_push(L, "client");
  return accept_step(L, LUA_OK, (lua_KContext)s->serial);
}
