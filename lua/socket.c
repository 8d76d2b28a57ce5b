/* SPDX-License-Identifier: MIT */
/*
 * The socket object: its classes, its descriptor and its plain methods. The
 * descriptor is closed by close, by <close>, by a task that dies while it waits
 * on it, or by the collector, whichever comes first.
 */
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* This share of all descriptors stays out of the reach of scripts. */
#define DESCRIPTOR_SHARE 8
#define COLLECT_MS 1000

/* In a socket's metatable: its kind. */
static const char kind_key = 'k';

/* ---- errors ----------------------------------------------------------- */

/* The words of LuaSocket, and of the system where it has none of its own. */
const char *relay__lua_socket_error(int outcome) {
  switch (outcome) {
  case IO_DONE:
    return NULL;
  case IO_TIMEOUT:
  case ETIMEDOUT:
    return "timeout";
  case IO_CLOSED:
  case ECONNRESET:
  case ECONNABORTED:
    return "closed";
  case IO_TRUNCATED:
    return "truncated";
  case EADDRINUSE:
    return "address already in use";
  case EISCONN:
    return "already connected";
  case EACCES:
    return "permission denied";
  case ECONNREFUSED:
    return "connection refused";
  default:
    return outcome > 0 ? strerror(outcome) : "unknown error";
  }
}

int relay__lua_socket_fail(lua_State *L, const struct socket *s, int outcome) {
  lua_pushnil(L);
  if (outcome == IO_TLS)
    lua_pushstring(L, relay__lua_tls_error(s));
  else
    lua_pushstring(L, relay__lua_socket_error(outcome));
  return 2;
}

/* ---- the descriptor --------------------------------------------------- */

static bool is_scarce(const struct policy *policy, int fd) {
  struct rlimit limit;

  return policy->socket_count >= SOCKETS_MAX ||
         (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
          (rlim_t)fd >= limit.rlim_cur - limit.rlim_cur / DESCRIPTOR_SHARE);
}

int relay__lua_socket_adopt(lua_State *L, struct socket *s, int fd) {
  struct policy *policy = relay__lua_policy_of(L);

  if (is_scarce(policy, fd)) {
    close(fd);
    return EMFILE;
  }
  s->fd = fd;
  s->next = policy->sockets;
  s->at = &policy->sockets;
  if (s->next != NULL)
    s->next->at = &s->next;
  policy->sockets = s;
  policy->socket_count++;
  s->serial = ++policy->next_socket;
  return IO_DONE;
}

static int try_open(lua_State *L, struct socket *s, int family) {
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int on = 1;

  if (fd < 0)
    return errno;
  if (family == AF_INET6)
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  return relay__lua_socket_adopt(L, s, fd);
}

/* Forgotten sockets may hold what is missing. */
static bool collect(lua_State *L) {
  struct policy *policy = relay__lua_policy_of(L);
  uint64_t now = uv_now(policy->lua->loop);

  if (policy->collected_ms != 0 && now - policy->collected_ms < COLLECT_MS)
    return false;
  policy->collected_ms = now;
  lua_gc(L, LUA_GCCOLLECT, 0);
  return true;
}

int relay__lua_socket_open(lua_State *L, struct socket *s, int family) {
  int outcome = try_open(L, s, family);

  if ((outcome == EMFILE || outcome == ENFILE) && collect(L))
    outcome = try_open(L, s, family);
  if (outcome == IO_DONE)
    s->family = family;
  return outcome;
}

/* The descriptor is nobody's then. */
static int detach(struct socket *s) {
  int fd = s->fd;

  if (fd < 0)
    return fd;
  relay__lua_socket_forget(s);
  s->fd = -1;
  s->first = s->last = 0;
  *s->at = s->next;
  if (s->next != NULL)
    s->next->at = s->at;
  s->policy->socket_count--;
  return fd;
}

void relay__lua_socket_close(struct socket *s) {
  int fd;

  relay__lua_tls_free(s);
  fd = detach(s);
  if (fd >= 0)
    close(fd);
}

/* ---- classes ---------------------------------------------------------- */

struct socket *relay__lua_socket_test(lua_State *L, int index) {
  struct socket *s = NULL;

  if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index))
    return NULL;
  if (lua_rawgetp(L, -1, &kind_key) == LUA_TSTRING)
    s = lua_touserdata(L, index);
  lua_pop(L, 2);
  return s;
}

struct socket *relay__lua_socket_check(lua_State *L, const char *kind) {
  struct socket *s = relay__lua_socket_test(L, 1);
  bool right = s != NULL;

  if (s != NULL && kind != NULL) {
    lua_getmetatable(L, 1);
    lua_rawgetp(L, -1, &kind_key);
    right = strcmp(lua_tostring(L, -1), kind) == 0;
    lua_pop(L, 2);
  }
  if (!right)
    luaL_argerror(
        L, 1,
        lua_pushfstring(L, "tcp{%s} expected", kind != NULL ? kind : "any"));
  return s;
}

/* ---- plain methods ---------------------------------------------------- */

static int meth_close(lua_State *L) {
  relay__lua_socket_close(relay__lua_socket_check(L, NULL));
  lua_pushnumber(L, 1);
  return 1;
}

static int meth_gc(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, NULL);

  relay__lua_socket_close(s);
  relay__lua_socket_drop(L, s);
  return 0;
}

static int meth_tostring(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, NULL);

  lua_getmetatable(L, 1);
  lua_getfield(L, -1, "__name");
  lua_pushfstring(L, "%s: %p", lua_tostring(L, -1), (void *)s);
  return 1;
}

static int meth_settimeout(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, NULL);
  lua_Number seconds = luaL_optnumber(L, 2, -1);
  const char *mode = luaL_optstring(L, 3, "b");

  if (*mode == 'b')
    s->block_s = seconds;
  else if (*mode == 't' || *mode == 'r')
    s->total_s = seconds;
  else
    luaL_argerror(L, 3, "invalid timeout mode");
  lua_pushnumber(L, 1);
  return 1;
}

static int meth_gettimeout(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, NULL);

  lua_pushnumber(L, s->block_s);
  lua_pushnumber(L, s->total_s);
  return 2;
}

static int meth_getstats(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, "client");

  lua_pushnumber(L, s->received);
  lua_pushnumber(L, s->sent);
  lua_pushnumber(L, (uv_hrtime() / 1e9) - s->born_s);
  return 3;
}

static int meth_setstats(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, "client");

  s->received = luaL_optnumber(L, 2, s->received);
  s->sent = luaL_optnumber(L, 3, s->sent);
  if (lua_isnumber(L, 4))
    s->born_s = (uv_hrtime() / 1e9) - lua_tonumber(L, 4);
  lua_pushnumber(L, 1);
  return 1;
}

static int meth_getfd(lua_State *L) {
  lua_pushnumber(L, relay__lua_socket_check(L, NULL)->fd);
  return 1;
}

/* -1 gives the descriptor away. Another one could be the relay's own. */
static int meth_setfd(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, NULL);
  int fd = (int)luaL_checkinteger(L, 2), outcome = IO_DONE;

  luaL_argcheck(L, fd < 0 || s->policy->lua->options.unsafe, 2,
                "only -1, in a policy that is not unsafe");
  relay__lua_tls_free(s);
  detach(s);
  if (fd >= 0) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    outcome = relay__lua_socket_adopt(L, s, fd);
  }
  return outcome == IO_DONE ? 0 : relay__lua_socket_fail(L, s, outcome);
}

static int meth_dirty(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, NULL);

  lua_pushboolean(L, s->first < s->last || relay__lua_tls_is_dirty(s));
  return 1;
}

static int meth_getfamily(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, NULL);

  lua_pushstring(L, s->family == AF_INET6 ? "inet6" : "inet4");
  return 1;
}

static int meth_shutdown(lua_State *L) {
  static const char *const ways[] = {"receive", "send", "both", NULL};
  static const int hows[] = {SHUT_RD, SHUT_WR, SHUT_RDWR};
  struct socket *s = relay__lua_socket_check(L, "client");
  int how = hows[luaL_checkoption(L, 2, "both", ways)];

  if (how != SHUT_RD)
    relay__lua_tls_shutdown(s);
  shutdown(s->fd, how);
  lua_pushnumber(L, 1);
  return 1;
}

/* ---- making ----------------------------------------------------------- */

static const luaL_Reg metamethods[] = {{"__gc", meth_gc},
                                       {"__close", meth_close},
                                       {"__tostring", meth_tostring},
                                       {NULL, NULL}};

static const luaL_Reg methods[] = {
    {"accept", relay__lua_socket_accept},
    {"bind", relay__lua_socket_bind},
    {"close", meth_close},
    {"connect", relay__lua_socket_connect},
    {"dirty", meth_dirty},
    {"getfamily", meth_getfamily},
    {"getfd", meth_getfd},
    {"getoption", relay__lua_socket_getoption},
    {"getpeername", relay__lua_socket_getpeername},
    {"getsockname", relay__lua_socket_getsockname},
    {"getstats", meth_getstats},
    {"gettimeout", meth_gettimeout},
    {"listen", relay__lua_socket_listen},
    {"receive", relay__lua_socket_receive},
    {"send", relay__lua_socket_send},
    {"setfd", meth_setfd},
    {"setoption", relay__lua_socket_setoption},
    {"setpeername", relay__lua_socket_connect},
    {"setsockname", relay__lua_socket_bind},
    {"setstats", meth_setstats},
    {"settimeout", meth_settimeout},
    {"shutdown", meth_shutdown},
    {"starttls", relay__lua_socket_starttls},
    {NULL, NULL}};

/* A class is made when the first of its objects is; it is known by its name
   only once it is whole. */
static void push_class(lua_State *L, const char *kind) {
  const char *name = lua_pushfstring(L, "tcp{%s}", kind);

  if (luaL_getmetatable(L, name) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newtable(L);
    luaL_setfuncs(L, metamethods, 0);
    luaL_newlib(L, methods);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "class");
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable"); /* its finalizer stays ours */
    lua_pushstring(L, kind);
    lua_rawsetp(L, -2, &kind_key);
    lua_pushvalue(L, -1);
    lua_setfield(L, LUA_REGISTRYINDEX, name);
  }
  lua_remove(L, -2);
}

void relay__lua_socket_become(lua_State *L, int index, const char *kind) {
  index = lua_absindex(L, index);
  push_class(L, kind);
  lua_setmetatable(L, index);
}

struct socket *relay__lua_socket_push(lua_State *L, const char *kind) {
  struct socket *s = lua_newuserdatauv(L, sizeof(*s), 2);

  memset(s, 0, offsetof(struct socket, buffer));
  s->policy = relay__lua_policy_of(L);
  s->slots[SIDE_READ].socket = s->slots[SIDE_WRITE].socket = s;
  s->fd = -1;
  s->family = AF_UNSPEC;
  s->block_s = s->total_s = -1;
  s->born_s = uv_hrtime() / 1e9;
  relay__lua_socket_become(L, -1, kind);
  return s;
}

static int make(lua_State *L, int family) {
  struct socket *s = relay__lua_socket_push(L, "master");
  int outcome = IO_DONE;

  if (family != AF_UNSPEC)
    outcome = relay__lua_socket_open(L, s, family);
  return outcome == IO_DONE ? 1 : relay__lua_socket_fail(L, s, outcome);
}

int relay__lua_tcp(lua_State *L) {
  return make(L, AF_UNSPEC);
}

int relay__lua_tcp4(lua_State *L) {
  return make(L, AF_INET);
}

int relay__lua_tcp6(lua_State *L) {
  return make(L, AF_INET6);
}
