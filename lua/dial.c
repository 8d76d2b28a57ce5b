/* SPDX-License-Identifier: MIT */
/*
 * Connecting: the name is looked up, and its addresses are tried in turn, each
 * with the whole of the time-out, as LuaSocket does it. A socket that had no
 * descriptor before gets a new one for each of them: one that has failed, or is
 * still at it, is of no use for the next.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "lookup.h"
#include "socket.h"

#define WHAT "tcp:connect"

/* The stack of a connect: the socket, host and port, the addresses. */
enum { AT_SOCKET = 1, AT_HOST, AT_PORT, AT_ADDRESSES };

/* LuaSocket's words for what the resolver says. */
const char *relay__lua_gai_error(int status) {
  switch (status) {
  case UV_EAI_AGAIN:
    return "temporary failure in name resolution";
  case UV_EAI_BADFLAGS:
    return "invalid value for ai_flags";
  case UV_EAI_FAIL:
    return "non-recoverable failure in name resolution";
  case UV_EAI_FAMILY:
    return "ai_family not supported";
  case UV_EAI_MEMORY:
    return "memory allocation failure";
  case UV_EAI_NONAME:
    return "host or service not provided, or not known";
  case UV_EAI_OVERFLOW:
    return "argument buffer overflow";
  case UV_EAI_SERVICE:
    return "service not supported for socket type";
  case UV_EAI_SOCKTYPE:
    return "ai_socktype not supported";
#ifdef EAI_NODATA
  case UV_EAI_NODATA:
    return gai_strerror(EAI_NODATA);
#endif
#ifdef EAI_ADDRFAMILY
  case UV_EAI_ADDRFAMILY:
    return gai_strerror(EAI_ADDRFAMILY);
#endif
  case UV_ETIMEDOUT:
    return "timeout";
  case UV_EPERM:
    return DENIED;
  default:
    return uv_strerror(status);
  }
}

/* ---- one address ------------------------------------------------------ */

static int start(lua_State *L, struct socket *s,
                 const struct sockaddr_storage *address) {
  int outcome = IO_DONE, result;

  s->slots[SIDE_WRITE].began_ns = uv_hrtime();
  relay__lua_socket_progress(s, SIDE_WRITE);
  if (s->fd < 0 || s->family != address->ss_family || s->fresh) {
    relay__lua_socket_close(s);
    outcome = relay__lua_socket_open(L, s, address->ss_family);
    if (outcome != IO_DONE)
      return outcome;
  }
  do
    result = connect(s->fd, (const struct sockaddr *)address,
                     relay__lua_address_size(address));
  while (result != 0 && errno == EINTR);
  if (result == 0)
    return IO_DONE;
  return errno == EINPROGRESS || errno == EAGAIN ? IO_WRITE : errno;
}

/* How the attempt under way has ended; IO_WRITE: it has not. */
static int look(const struct socket *s) {
  struct pollfd poll_fd = {.fd = s->fd, .events = POLLOUT};
  int error = 0;
  socklen_t size = sizeof(error);

  if (s->fd < 0)
    return IO_CLOSED;
  if (poll(&poll_fd, 1, 0) == 0)
    return IO_WRITE;
  if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
    return errno;
  return error;
}

static bool is_denied(const struct socket *s) {
  return (s->policy->lua->denied & 1U << RELAY_LUA_NEEDS_SOCKETS) != 0;
}

/* ---- all of them ------------------------------------------------------ */

static int connect_end(lua_State *L, struct socket *s, int outcome) {
  bool whole = s->whole;

  s->whole = false;
  relay__lua_socket_become(L, AT_SOCKET, "client");
  if (outcome != IO_DONE) {
    if (whole || (s->fresh && s->block_s != 0))
      relay__lua_socket_close(s);
    if (outcome == EPERM && is_denied(s)) {
      lua_pushnil(L);
      lua_pushliteral(L, DENIED);
      return 2;
    }
    return relay__lua_socket_fail(L, s, outcome);
  }
  lua_pushvalue(L, AT_HOST);
  lua_setiuservalue(L, AT_SOCKET, USER_HOST);
  if (lua_getiuservalue(L, AT_SOCKET, USER_TLS) == LUA_TTABLE)
    return relay__lua_tls_begin(L, s);
  if (whole)
    lua_pushvalue(L, AT_SOCKET);
  else
    lua_pushnumber(L, 1);
  return 1;
}

static int connect_step(lua_State *L, int status, lua_KContext context);

/* From the outcome of one address to the next, until one is it or none. */
static int advance(lua_State *L, struct socket *s, int outcome) {
  const struct addresses *found = lua_touserdata(L, AT_ADDRESSES);

  for (;;) {
    if (outcome == IO_WRITE && !relay__lua_socket_is_late(s, SIDE_WRITE))
      return relay__lua_socket_wait(L, s, SIDE_WRITE, IO_WRITE, WHAT,
                                    connect_step);
    if (outcome == IO_WRITE)
      outcome = IO_TIMEOUT;
    if (outcome == IO_DONE || outcome == IO_CLOSED || s->block_s == 0 ||
        ++s->address >= found->count)
      return connect_end(L, s, outcome);
    outcome = start(L, s, &found->list[s->address]);
  }
}

static int connect_step(lua_State *L, int status, lua_KContext context) {
  struct socket *s = lua_touserdata(L, AT_SOCKET);

  (void)status;
  if (relay__lua_socket_is_another(s, context))
    return relay__lua_socket_fail(L, s, IO_CLOSED);
  return advance(L, s, look(s));
}

static int after_look_up(lua_State *L, int status, lua_KContext context) {
  struct socket *s = lua_touserdata(L, AT_SOCKET);
  const struct addresses *found = lua_touserdata(L, AT_ADDRESSES);

  (void)status;
  (void)context;
  if (found->status != 0 || found->count == 0) {
    relay__lua_socket_become(L, AT_SOCKET, "client");
    lua_pushnil(L);
    lua_pushstring(L, relay__lua_gai_error(found->status != 0 ? found->status
                                                              : UV_EAI_NONAME));
    return 2;
  }
  relay__lua_socket_begin(L, s, SIDE_WRITE, WHAT);
  s->address = 0;
  s->fresh = s->fd < 0;
  return advance(L, s, start(L, s, &found->list[0]));
}

/* The longest that a look-up may take: what the time-outs leave to one call. */
static uint64_t limit_of(const struct socket *s) {
  double limit_s = s->block_s > 0 ? s->block_s : s->total_s;

  if (s->total_s > 0)
    limit_s = fmin(limit_s, s->total_s);
  return limit_s > 0 ? (uint64_t)ceil(fmin(limit_s, 1e9) * 1000) : 0;
}

static int begin(lua_State *L, struct socket *s) {
  struct query query = {
      .what = WHAT,
      .host = relay__lua_check_text(L, AT_HOST),
      .service = relay__lua_check_text(L, AT_PORT),
      .hints = {.ai_socktype = SOCK_STREAM, .ai_family = s->family},
      .limit_ms = limit_of(s)};

  lua_settop(L, AT_PORT);
  relay__lua_socket_begin(L, s, SIDE_WRITE, WHAT);
  return relay__lua_look_up(L, &query, after_look_up);
}

int relay__lua_socket_connect(lua_State *L) {
  return begin(L, relay__lua_socket_check(L, NULL));
}

/* ---- socket.connect --------------------------------------------------- */

static int after_local(lua_State *L, int status, lua_KContext context) {
  struct socket *s = lua_touserdata(L, AT_SOCKET);

  (void)status;
  (void)context;
  if (relay__lua_bind_first(L, s, lua_touserdata(L, -1)) != IO_DONE)
    return 2;
  return begin(L, s);
}

/* (host, port[, local host[, local port[, family]]]) */
int relay__lua_connect(lua_State *L) {
  static const char *const names[] = {"unspec", "inet", "inet6", NULL};
  static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
  int family = families[luaL_checkoption(L, 5, "unspec", names)];
  struct query query = {.what = WHAT,
                        .host = relay__lua_opt_text(L, 3, NULL),
                        .service = relay__lua_opt_text(L, 4, "0"),
                        .hints = {.ai_socktype = SOCK_STREAM,
                                  .ai_family = family,
                                  .ai_flags = AI_PASSIVE}};
  struct socket *s;

  relay__lua_check_text(L, 1);
  relay__lua_check_text(L, 2);
  lua_settop(L, 4);
  s = relay__lua_socket_push(L, "master");
  lua_insert(L, AT_SOCKET);
  s->whole = true;
  s->family = family;
  return query.host != NULL ? relay__lua_look_up(L, &query, after_local)
                            : begin(L, s);
}
