/* SPDX-License-Identifier: MIT */
/*
 * Sockets that a script holds. They have the methods and results of LuaSocket
 * 3.1, and wait in the coroutine. Each method that may wait is a step that is
 * taken again after every wait, until it has what it wants or is too late;
 * what it has so far is kept in the socket. So at most one task may receive on
 * a socket at a time, and one send.
 *
 * A task that is killed while it waits on a socket takes the socket with it:
 * nobody could tell any more where in the stream it stands.
 */
#ifndef RELAY_LUA_SOCKET_H
#define RELAY_LUA_SOCKET_H

#include "private.h"

#define SOCKETS_MAX 1024
#define BUFFER_BYTES 8192
/* What one socket moves without a turn of the loop, if its peer keeps up. */
#define TURN_BYTES (64 << 10)

/* What system calls and TLS come to: these, or an errno. */
enum outcome {
  IO_DONE = 0,
  IO_TIMEOUT = -1,
  IO_CLOSED = -2,
  IO_READ = -3,  /* once it is readable */
  IO_WRITE = -4, /* once it is writable */
  IO_TRUNCATED = -5,
  IO_TLS = -6, /* the socket's TLS says why */
};

enum side { SIDE_READ, SIDE_WRITE };

/* One direction. TLS may have to read in order to send: who waits on a side is
   not always who uses it. */
struct slot {
  struct socket *socket;
  struct task *task; /* that waits here */
  enum side use;     /* what for */
  uint64_t began_ns; /* the operation under way on this side */
  uint64_t until_ns; /* it waits in vain; 0: there was progress since */
  size_t moved;      /* its bytes since the last wait */
};

struct socket {
  struct policy *policy;
  struct socket *next;
  struct socket **at; /* what points to it */
  uint64_t serial;    /* of each descriptor */
  int fd;             /* -1: none */
  int family;
  bool serves;
  struct watch *watch; /* from the first wait on */
  struct tls *tls;
  double block_s; /* time-outs; negative: none */
  double total_s;
  struct slot slots[2];
  double received;
  double sent;
  double born_s;

  char pattern; /* of the receive under way: l, a or n */
  size_t wanted;
  size_t taken;
  char *gathered;
  size_t gathered_size;
  size_t gathered_room;

  size_t send_at; /* of the send under way */
  size_t send_end;

  int address; /* of the connect under way */
  bool fresh;  /* it may open one descriptor after the other */
  bool whole;  /* it returns the socket, or nothing is left of it */

  size_t first; /* read ahead */
  size_t last;
  char buffer[BUFFER_BYTES];
};

#define USER_HOST 1 /* user values: the host it was connected to */
#define USER_TLS 2  /* options: connect goes on to TLS by itself */

/* ---- the object (socket.c) -------------------------------------------- */

/* Leaves a new one, without a descriptor, on top. */
struct socket *relay__lua_socket_push(lua_State *L, const char *kind);
/* `kind` is "master", "client" or "server"; NULL: any. Raises. */
struct socket *relay__lua_socket_check(lua_State *L, const char *kind);
struct socket *relay__lua_socket_test(lua_State *L, int index);
void relay__lua_socket_become(lua_State *L, int index, const char *kind);
/* Opens a descriptor, or takes one over. IO_DONE or an errno; EMFILE also
   where others would starve. `fd` is closed if it is not taken. */
int relay__lua_socket_open(lua_State *L, struct socket *s, int family);
int relay__lua_socket_adopt(lua_State *L, struct socket *s, int fd);
void relay__lua_socket_close(struct socket *s);
/* Pushes nil and the text of an outcome; returns 2. */
int relay__lua_socket_fail(lua_State *L, const struct socket *s, int outcome);
const char *relay__lua_socket_error(int outcome);
int relay__lua_tcp(lua_State *L);
int relay__lua_tcp4(lua_State *L);
int relay__lua_tcp6(lua_State *L);

/* ---- waiting (ready.c) ------------------------------------------------ */

/* An operation begins: its time counts from now. Raises where it may have to
   wait and cannot, and when another one is under way. */
void relay__lua_socket_begin(lua_State *L, struct socket *s, enum side side,
                             const char *what);
/* One more step was made: the next block has its time again. */
void relay__lua_socket_progress(struct socket *s, enum side side);
/* As LuaSocket counts: with no `block_s` there is no waiting at all. */
bool relay__lua_socket_is_late(const struct socket *s, enum side side);
/* Waits until IO_READ or IO_WRITE is over, or it is late, and goes on with
   `then`, whose context is the serial of the descriptor that was waited on. The
   side is that of the operation. */
int relay__lua_socket_wait(lua_State *L, struct socket *s, enum side side,
                           int outcome, const char *what, lua_KFunction then);
/* Whether it was closed and opened again meanwhile: what it is now, and has
   gathered, belongs to another operation. */
bool relay__lua_socket_is_another(const struct socket *s, lua_KContext serial);
/* Wakes the task when the side is ready. 0, or a libuv code. */
int relay__lua_socket_watch(struct socket *s, enum side side,
                            struct task *task);
void relay__lua_socket_unwatch(struct slot *slot);
/* Who waits is woken from the loop; the descriptor is no longer watched. */
void relay__lua_socket_forget(struct socket *s);

/* ---- bytes (stream.c), addresses (dial.c, serve.c, sockopt.c) --------- */

/* Once, without waiting; through TLS where there is any. */
int relay__lua_socket_take(struct socket *s, void *bytes, size_t count,
                           size_t *got);
int relay__lua_socket_put(struct socket *s, const void *bytes, size_t count,
                          size_t *sent);
/* What was gathered. */
void relay__lua_socket_drop(lua_State *L, struct socket *s);
int relay__lua_socket_send(lua_State *L);
int relay__lua_socket_receive(lua_State *L);
int relay__lua_socket_connect(lua_State *L);
int relay__lua_connect(lua_State *L);
int relay__lua_socket_bind(lua_State *L);
int relay__lua_socket_listen(lua_State *L);
int relay__lua_socket_accept(lua_State *L);
int relay__lua_socket_setoption(lua_State *L);
int relay__lua_socket_getoption(lua_State *L);
int relay__lua_socket_getpeername(lua_State *L);
int relay__lua_socket_getsockname(lua_State *L);
struct addresses;
/* Binds to the first that can be had. IO_DONE; or nil and why are on top. */
int relay__lua_bind_first(lua_State *L, struct socket *s,
                          const struct addresses *found);
/* LuaSocket's words for what the resolver says. */
const char *relay__lua_gai_error(int status);

/* ---- TLS (tls.c, handshake.c) ----------------------------------------- */

int relay__lua_socket_starttls(lua_State *L);
/* With the socket at 1 and a table of options on top. */
int relay__lua_tls_begin(lua_State *L, struct socket *s);
int relay__lua_tls_take(struct socket *s, void *bytes, size_t count,
                        size_t *got);
int relay__lua_tls_put(struct socket *s, const void *bytes, size_t count,
                       size_t *sent);
bool relay__lua_tls_is_dirty(const struct socket *s);
const char *relay__lua_tls_error(const struct socket *s);
/* Tells the peer that nothing follows. */
void relay__lua_tls_shutdown(struct socket *s);
void relay__lua_tls_free(struct socket *s);

/* ---- the modules ------------------------------------------------------ */

int relay__lua_select(lua_State *L);
int relay__lua_newtry(lua_State *L);
int relay__lua_protect_function(lua_State *L);
/* Leaves the table `dns` on top. */
void relay__lua_open_dns(lua_State *L);
int relay__lua_open_https(lua_State *L);

#endif
