/* SPDX-License-Identifier: MIT */
/*
 * Stream sockets for tests: TCP over IPv4 and IPv6, and Unix. They never block
 * by themselves; each call waits for at most its time-out. The three ends a
 * connection can take are told apart: "eof", "reset", "timeout". A reset that
 * sending was told is told to reading as well.
 */
#include "sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/sockios.h>

union address {
  struct sockaddr any;
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
  struct sockaddr_un un;
  struct sockaddr_storage storage;
};

struct socket {
  int fd;
  bool reset; /* who sent was told: the kernel tells it once */
};

int sys_socket_fd(lua_State *L, int index) {
  const struct socket *self = luaL_checkudata(L, index, SYS_SOCKET);

  if (self->fd < 0)
    luaL_argerror(L, index, "the socket is closed");
  return self->fd;
}

static int *push_socket(lua_State *L) {
  struct socket *self = lua_newuserdatauv(L, sizeof *self, 0);

  *self = (struct socket){.fd = -1};
  luaL_setmetatable(L, SYS_SOCKET);
  return &self->fd;
}

/* Sending, at index 1, has failed. */
static int fail_send(lua_State *L, int error) {
  struct socket *self = luaL_checkudata(L, 1, SYS_SOCKET);

  if (error == ECONNRESET || error == EPIPE)
    self->reset = true;
  return sys_fail(L, error);
}

/* ---- options --------------------------------------------------------------
 */

static void set_option(lua_State *L, int fd, int level, int name, int value,
                       const char *key) {
  if (setsockopt(fd, level, name, &value, sizeof value) != 0)
    luaL_error(L, "%s: %s", key, strerror(errno));
}

static void set_options(lua_State *L, int fd, int table) {
  static const struct {
    const char *key;
    int level, name;
  } options[] = {{"rcvbuf", SOL_SOCKET, SO_RCVBUF},
                 {"sndbuf", SOL_SOCKET, SO_SNDBUF},
                 {"keepalive", SOL_SOCKET, SO_KEEPALIVE},
                 {"oobinline", SOL_SOCKET, SO_OOBINLINE},
                 {"nodelay", IPPROTO_TCP, TCP_NODELAY},
                 {"maxseg", IPPROTO_TCP, TCP_MAXSEG}};

  if (!lua_istable(L, table))
    return;
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
    const char *key = options[i].key;
    int type = lua_getfield(L, table, key);
    int value =
        type == LUA_TBOOLEAN ? lua_toboolean(L, -1) : (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (type != LUA_TNIL)
      set_option(L, fd, options[i].level, options[i].name, value, key);
  }
}

/* ---- addresses ------------------------------------------------------------
 */

static socklen_t unix_address(lua_State *L, union address *address,
                              const char *path) {
  size_t length = strlen(path);

  if (length >= sizeof address->un.sun_path)
    luaL_error(L, "the path is too long: %s", path);
  memset(address, 0, sizeof *address);
  address->un.sun_family = AF_UNIX;
  memcpy(address->un.sun_path, path, length);
  return sizeof address->un;
}

static struct addrinfo *resolve(lua_State *L, const char *host, int port) {
  struct addrinfo hints, *list = NULL;
  char service[16];
  int error;

  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  snprintf(service, sizeof service, "%d", port);
  error = getaddrinfo(host, service, &hints, &list);
  if (error != 0)
    luaL_error(L, "%s: %s", host, gai_strerror(error));
  return list;
}

static int push_address(lua_State *L, const union address *address) {
  char host[INET6_ADDRSTRLEN] = "";

  switch (address->any.sa_family) {
  case AF_INET:
    inet_ntop(AF_INET, &address->in.sin_addr, host, sizeof host);
    lua_pushstring(L, host);
    lua_pushinteger(L, ntohs(address->in.sin_port));
    return 2;
  case AF_INET6:
    inet_ntop(AF_INET6, &address->in6.sin6_addr, host, sizeof host);
    lua_pushstring(L, host);
    lua_pushinteger(L, ntohs(address->in6.sin6_port));
    return 2;
  default:
    lua_pushliteral(L, "unix");
    lua_pushinteger(L, 0);
    return 2;
  }
}

/* socket:address() and socket:peer(): host, port. */
static int address_of(lua_State *L) {
  union address address;
  socklen_t length = sizeof address;

  memset(&address, 0, sizeof address);
  if (getsockname(sys_socket_fd(L, 1), &address.any, &length) != 0)
    return sys_fail(L, errno);
  return push_address(L, &address);
}

static int peer_of(lua_State *L) {
  union address address;
  socklen_t length = sizeof address;

  memset(&address, 0, sizeof address);
  if (getpeername(sys_socket_fd(L, 1), &address.any, &length) != 0)
    return sys_fail(L, errno);
  return push_address(L, &address);
}

static int port_of(lua_State *L) {
  int count = address_of(L);

  if (count == 2 && lua_isinteger(L, -1))
    return 1;
  return count;
}

/* ---- opening --------------------------------------------------------------
 */

static int open_fd(lua_State *L, int family) {
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

  if (fd < 0)
    luaL_error(L, "socket: %s", strerror(errno));
  return fd;
}

static int bind_and_listen(int fd, const struct sockaddr *address,
                           socklen_t length, int backlog) {
  int on = 1;

  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, address, length) != 0 || listen(fd, backlog) != 0)
    return errno;
  return 0;
}

/* listen{host="127.0.0.1", port=0 | unix=PATH, backlog=4096, OPTIONS}: a
   socket, or nil and why. */
static int listen_on(lua_State *L) {
  const char *host, *path;
  int backlog, error, port;
  int *fd;

  lua_settop(L, 1);
  if (lua_isnil(L, 1)) {
    lua_newtable(L);
    lua_replace(L, 1);
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  host = sys_field_string(L, 1, "host");
  path = sys_field_string(L, 1, "unix");
  port = (int)sys_field_integer(L, 1, "port", 0);
  backlog = (int)sys_field_integer(L, 1, "backlog", 4096);
  fd = push_socket(L);
  if (path != NULL) {
    union address address;
    socklen_t length = unix_address(L, &address, path);
    *fd = open_fd(L, AF_UNIX);
    error = bind_and_listen(*fd, &address.any, length, backlog);
  } else {
    struct addrinfo *list = resolve(L, host != NULL ? host : "127.0.0.1", port);
    int family = list->ai_family;
    union address address;
    socklen_t length = list->ai_addrlen;
    memcpy(&address, list->ai_addr, length);
    freeaddrinfo(list);
    *fd = open_fd(L, family);
    set_options(L, *fd, 1);
    error = bind_and_listen(*fd, &address.any, length, backlog);
  }
  return error == 0 ? 1 : sys_fail(L, error);
}

/* 0, or an errno, or -1 when the time is over. */
static int connect_fd(lua_State *L, int fd, const struct sockaddr *address,
                      socklen_t length, double deadline) {
  socklen_t size = sizeof(int);
  int error = 0;

  while (connect(fd, address, length) != 0) {
    if (errno == EISCONN)
      return 0;
    if (errno == EINTR || errno == EALREADY)
      continue;
    if (errno == EAGAIN) { /* a full backlog, Unix only: no event to wait for */
      if (sys_left_ms(deadline) == 0)
        return -1;
      poll(NULL, 0, 1);
      sys_check_watchdog(L);
      continue;
    }
    if (errno != EINPROGRESS)
      return errno;
    if (!sys_wait_fd(L, fd, POLLOUT, deadline))
      return -1;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
  }
  return 0;
}

static int connect_unix(lua_State *L, int *fd, const char *path,
                        double deadline) {
  union address address;
  socklen_t length = unix_address(L, &address, path);

  *fd = open_fd(L, AF_UNIX);
  return connect_fd(L, *fd, &address.any, length, deadline);
}

/* From an address of the test's choice, so that it can be many visitors. */
static void bind_from(lua_State *L, int fd, int family, const char *from) {
  union address address;
  int done;

  memset(&address, 0, sizeof address);
  address.any.sa_family = (sa_family_t)family;
  if (family == AF_INET)
    done = inet_pton(AF_INET, from, &address.in.sin_addr);
  else
    done = inet_pton(AF_INET6, from, &address.in6.sin6_addr);
  if (done != 1 || bind(fd, &address.any, sizeof address.in6) != 0)
    luaL_error(L, "cannot connect from %s", from);
}

static int connect_tcp(lua_State *L, int *fd, const char *host, int port,
                       double deadline) {
  struct addrinfo *list = resolve(L, host, port);
  union address address[8];
  socklen_t length[8];
  int count = 0, error = ECONNREFUSED;

  for (struct addrinfo *at = list; at != NULL && count < 8; at = at->ai_next) {
    memcpy(&address[count], at->ai_addr, at->ai_addrlen);
    length[count++] = at->ai_addrlen;
  }
  freeaddrinfo(list);
  for (int i = 0; i < count; i++) {
    const char *from = NULL;
    if (*fd >= 0)
      close(*fd);
    *fd = -1;
    *fd = open_fd(L, address[i].any.sa_family);
    set_options(L, *fd, 3);
    if (lua_istable(L, 3))
      from = sys_field_string(L, 3, "from");
    if (from != NULL)
      bind_from(L, *fd, address[i].any.sa_family, from);
    error = connect_fd(L, *fd, &address[i].any, length[i], deadline);
    if (error == 0)
      return 0;
  }
  return error;
}

/* connect(HOST, PORT, {timeout=, from=, OPTIONS}), connect("unix", PATH, {…}):
   a socket, or nil and why ("ECONNREFUSED", "timeout", …). */
static int connect_to(lua_State *L) {
  const char *host = luaL_checkstring(L, 1);
  double deadline;
  int *fd, error;

  lua_settop(L, 3);
  if (lua_istable(L, 3))
    lua_getfield(L, 3, "timeout");
  else
    lua_pushnil(L);
  deadline = sys_deadline(L, 4);
  fd = push_socket(L);
  if (strcmp(host, "unix") == 0)
    error = connect_unix(L, fd, luaL_checkstring(L, 2), deadline);
  else
    error = connect_tcp(L, fd, host, (int)luaL_checkinteger(L, 2), deadline);
  if (error == 0)
    return 1;
  close(*fd);
  *fd = -1;
  return sys_fail(L, error < 0 ? 0 : error);
}

/* socket:accept([TIMEOUT]) */
static int accept_one(lua_State *L) {
  int listener = sys_socket_fd(L, 1);
  double deadline = sys_deadline(L, 2);
  int *fd = push_socket(L);

  for (;;) {
    *fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (*fd >= 0)
      return 1;
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
      return sys_fail(L, errno);
    if (!sys_wait_fd(L, listener, POLLIN, deadline))
      return sys_fail(L, 0);
  }
}

static int pair_of(lua_State *L) {
  int both[2];
  int *left = push_socket(L), *right = push_socket(L);

  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                 both) != 0)
    return luaL_error(L, "socketpair: %s", strerror(errno));
  *left = both[0];
  *right = both[1];
  return 2;
}

/* ---- sending --------------------------------------------------------------
 */

/* socket:send(BYTES [, TIMEOUT [, "oob"]]): true when all were taken; or nil,
   why, and how many were. */
static int send_all(lua_State *L) {
  int fd = sys_socket_fd(L, 1);
  size_t count, sent = 0;
  const char *bytes = luaL_checklstring(L, 2, &count);
  double deadline = sys_deadline(L, 3);
  int flags = MSG_NOSIGNAL | (lua_toboolean(L, 4) ? MSG_OOB : 0);
  int error = -1;

  while (sent < count && error == -1) {
    ssize_t taken = send(fd, bytes + sent, count - sent, flags);
    if (taken >= 0)
      sent += (size_t)taken;
    else if (errno == EAGAIN)
      error = sys_wait_fd(L, fd, POLLOUT, deadline) ? -1 : 0;
    else if (errno != EINTR)
      error = errno;
  }
  if (error == -1) {
    lua_pushboolean(L, 1);
    return 1;
  }
  fail_send(L, error);
  lua_pushinteger(L, (lua_Integer)sent);
  return 3;
}

/* socket:try_send(BYTES): how many were taken at once, maybe 0; or nil, why. */
static int try_send(lua_State *L) {
  size_t count;
  const char *bytes = luaL_checklstring(L, 2, &count);
  ssize_t sent = send(sys_socket_fd(L, 1), bytes, count, MSG_NOSIGNAL);

  if (sent < 0 && errno != EAGAIN)
    return fail_send(L, errno);
  lua_pushinteger(L, sent < 0 ? 0 : sent);
  return 1;
}

/* ---- receiving ------------------------------------------------------------
 */

/* From the socket at index 1: > 0 bytes; 0 at the end; -1 with errno, 0 when
   the time is over. */
static ssize_t receive(lua_State *L, int fd, void *bytes, size_t size,
                       int flags, double deadline) {
  const struct socket *self = luaL_checkudata(L, 1, SYS_SOCKET);

  for (;;) {
    ssize_t count = recv(fd, bytes, size, flags);
    if (count == 0 && self->reset) {
      errno = ECONNRESET;
      return -1;
    }
    if (count >= 0)
      return count;
    if (errno == EINTR)
      continue;
    if (errno != EAGAIN)
      return -1;
    if (!sys_wait_fd(L, fd, POLLIN, deadline)) {
      errno = 0;
      return -1;
    }
  }
}

static const char *end_name(ssize_t count) {
  return count == 0 ? "eof" : sys_error_name(errno);
}

/* socket:recv([TIMEOUT [, MAX]]): some bytes; or nil and "eof", "reset",
   "timeout", … */
static int receive_some(lua_State *L) {
  int fd = sys_socket_fd(L, 1);
  double deadline = sys_deadline(L, 2);
  size_t size = (size_t)luaL_optinteger(L, 3, 65536);
  luaL_Buffer buffer;
  char *bytes = luaL_buffinitsize(L, &buffer, size);
  ssize_t count = receive(L, fd, bytes, size, 0, deadline);

  if (count > 0) {
    luaL_pushresultsize(&buffer, (size_t)count);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, end_name(count));
  return 2;
}

/* Up to `size` bytes onto the stack; how it ended if it did before that. */
static const char *receive_up_to(lua_State *L, int fd, lua_Integer size,
                                 double deadline) {
  const char *how = NULL;
  char chunk[65536];
  luaL_Buffer buffer;

  luaL_buffinit(L, &buffer);
  while (size > 0 && how == NULL) {
    size_t want =
        size < (lua_Integer)sizeof chunk ? (size_t)size : sizeof chunk;
    ssize_t count = receive(L, fd, chunk, want, 0, deadline);
    if (count <= 0) {
      how = end_name(count);
    } else {
      luaL_addlstring(&buffer, chunk, (size_t)count);
      size -= count;
    }
  }
  luaL_pushresult(&buffer);
  return how;
}

/* socket:recv_exact(COUNT [, TIMEOUT]): exactly so many bytes; or nil, why, and
   what came. */
static int receive_exact(lua_State *L) {
  int fd = sys_socket_fd(L, 1);
  double deadline = sys_deadline(L, 3);
  const char *how = receive_up_to(L, fd, luaL_checkinteger(L, 2), deadline);

  if (how == NULL)
    return 1;
  lua_pushnil(L);
  lua_pushstring(L, how);
  lua_rotate(L, -3, 2);
  return 3;
}

/* socket:recv_all([TIMEOUT]): all bytes until it ends, and how it ended. */
static int receive_all(lua_State *L) {
  int fd = sys_socket_fd(L, 1);
  double deadline = sys_deadline(L, 2);

  lua_pushstring(L, receive_up_to(L, fd, LUA_MAXINTEGER, deadline));
  return 2;
}

/* socket:discard([TIMEOUT]): how many bytes came until it ended, and how. */
static int discard(lua_State *L) {
  static char chunk[1 << 18];
  int fd = sys_socket_fd(L, 1);
  double deadline = sys_deadline(L, 2);
  lua_Integer total = 0;
  ssize_t count;

  while ((count = receive(L, fd, chunk, sizeof chunk, 0, deadline)) > 0)
    total += count;
  lua_pushinteger(L, total);
  lua_pushstring(L, end_name(count));
  return 2;
}

/* socket:recv_line([TIMEOUT]): one line without its LF, and not a byte after
   it; or nil, why, and what came. */
static int receive_line(lua_State *L) {
  int fd = sys_socket_fd(L, 1);
  double deadline = sys_deadline(L, 2);
  luaL_Buffer buffer;

  luaL_buffinit(L, &buffer);
  for (;;) {
    char chunk[4096];
    ssize_t count = receive(L, fd, chunk, sizeof chunk, MSG_PEEK, deadline);
    char *end = count > 0 ? memchr(chunk, '\n', (size_t)count) : NULL;
    if (count <= 0) {
      const char *how = end_name(count);
      luaL_pushresult(&buffer); /* before anything else is on the stack */
      lua_pushnil(L);
      lua_pushstring(L, how);
      lua_rotate(L, -3, 2);
      return 3;
    }
    if (end != NULL)
      count = end - chunk + 1;
    count = recv(fd, chunk, (size_t)count, 0);
    luaL_addlstring(&buffer, chunk, (size_t)count - (end != NULL));
    if (end != NULL) {
      luaL_pushresult(&buffer);
      return 1;
    }
  }
}

/* ---- ending ---------------------------------------------------------------
 */

static int shut(lua_State *L) {
  static const char *const names[] = {"write", "read", "both", NULL};
  static const int how[] = {SHUT_WR, SHUT_RD, SHUT_RDWR};
  int fd = sys_socket_fd(L, 1);

  if (shutdown(fd, how[luaL_checkoption(L, 2, "write", names)]) != 0)
    return sys_fail(L, errno);
  lua_pushboolean(L, 1);
  return 1;
}

/* Idempotent; also how one is collected. */
static int close_socket(lua_State *L) {
  int *fd = luaL_checkudata(L, 1, SYS_SOCKET);

  if (*fd >= 0)
    close(*fd);
  *fd = -1;
  return 0;
}

/* socket:reset(): closes with a reset. */
static int reset(lua_State *L) {
  struct linger now = {1, 0};

  setsockopt(sys_socket_fd(L, 1), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  return close_socket(L);
}

/* ---- looking --------------------------------------------------------------
 */

static int fd_of(lua_State *L) {
  lua_pushinteger(L, sys_socket_fd(L, 1));
  return 1;
}

static int queue(lua_State *L, unsigned long request) {
  int count = 0;

  if (ioctl(sys_socket_fd(L, 1), request, &count) != 0)
    return sys_fail(L, errno);
  lua_pushinteger(L, count);
  return 1;
}

/* Bytes sent and not yet acknowledged. */
static int outq(lua_State *L) {
  return queue(L, SIOCOUTQ);
}

/* Bytes received and not yet read. */
static int inq(lua_State *L) {
  return queue(L, SIOCINQ);
}

static int set(lua_State *L) {
  luaL_checktype(L, 2, LUA_TTABLE);
  set_options(L, sys_socket_fd(L, 1), 2);
  return 0;
}

/* socket:wait("r" | "w" | "rw" [, TIMEOUT]): whether it came to be so. */
static int wait_for(lua_State *L) {
  const char *what = luaL_checkstring(L, 2);
  short events = 0;

  if (strchr(what, 'r') != NULL)
    events |= POLLIN;
  if (strchr(what, 'w') != NULL)
    events |= POLLOUT;
  lua_pushboolean(
      L, sys_wait_fd(L, sys_socket_fd(L, 1), events, sys_deadline(L, 3)));
  return 1;
}

/* poll({SOCKET, …}, "r" | "w" | "rw" [, TIMEOUT]): a list of those ready, in
   order; empty when none came to be. */
static int poll_many(lua_State *L) {
  size_t count = lua_rawlen(L, 1), ready = 0;
  const char *what = luaL_checkstring(L, 2);
  double deadline = sys_deadline(L, 3);
  struct pollfd *entries =
      lua_newuserdatauv(L, (count + 1) * sizeof *entries, 0);
  int result;

  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    entries[i].fd = sys_socket_fd(L, -1);
    entries[i].events = (short)((strchr(what, 'r') != NULL ? POLLIN : 0) |
                                (strchr(what, 'w') != NULL ? POLLOUT : 0));
    lua_pop(L, 1);
  }
  do {
    result = poll(entries, count, sys_left_ms(deadline));
    sys_check_watchdog(L);
  } while (result <= 0 && sys_left_ms(deadline) > 0);
  lua_newtable(L);
  for (size_t i = 0; result > 0 && i < count; i++) {
    if (entries[i].revents == 0)
      continue;
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    lua_rawseti(L, -2, (lua_Integer)++ready);
  }
  return 1;
}

static const luaL_Reg methods[] = {{"accept", accept_one},
                                   {"address", address_of},
                                   {"peer", peer_of},
                                   {"port", port_of},
                                   {"send", send_all},
                                   {"try_send", try_send},
                                   {"recv", receive_some},
                                   {"recv_exact", receive_exact},
                                   {"recv_all", receive_all},
                                   {"recv_line", receive_line},
                                   {"discard", discard},
                                   {"shutdown", shut},
                                   {"close", close_socket},
                                   {"reset", reset},
                                   {"fd", fd_of},
                                   {"outq", outq},
                                   {"inq", inq},
                                   {"set", set},
                                   {"wait", wait_for},
                                   {"__gc", close_socket},
                                   {"__close", close_socket},
                                   {NULL, NULL}};

static const luaL_Reg functions[] = {{"listen", listen_on},
                                     {"connect", connect_to},
                                     {"socketpair", pair_of},
                                     {"poll", poll_many},
                                     {NULL, NULL}};

void sys_open_socket(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, SYS_SOCKET);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
