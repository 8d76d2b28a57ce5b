/* SPDX-License-Identifier: MIT */
/*
 * A stream is a connected socket that this library owns from accept4 or
 * connect on, watched through uv_poll. Its law:
 *
 * 1. Until relay__stream_pardon it closes by reset (SO_LINGER {1,0}): whatever
 *    ends it out of order, the process's own death included, the peer never
 *    takes a cut for an end.
 * 2. `reset` is set by the first sign of a reset, whichever call saw it, since
 *    the kernel tells only once. A read of 0 is an end only while it is unset.
 * 3. The watch is kept as it is until it must change: each change costs system
 *    calls.
 *
 * TLS may be laid over it (tls.h); then all that is below goes through it, and
 * close_notify is the FIN.
 */
#ifndef RELAY_STREAM_H
#define RELAY_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <uv.h>

#include "net/plane.h"

struct stream;
struct tls;

/* `events`: UV_READABLE, UV_WRITABLE. A stream whose `reset` was just found
   reports both, once. The callback may close the stream. */
typedef void (*stream_event_fn)(struct stream *stream, int events);

struct stream {
  uv_poll_t poll;
  struct plane *plane;
  int fd;
  int watched;     /* events uv_poll is armed for */
  bool attached;   /* the loop has it; false on its way to another one */
  bool reset;      /* the connection is dead; queued bytes may be left */
  bool shut;       /* our FIN is sent, and it still closes by reset */
  bool urgent;     /* an urgent byte is pending: no quiet floor */
  int error;       /* why reset, a negative code */
  struct tls *tls; /* NULL: plain */
  stream_event_fn on_event;
  void *owner;
};

/* Takes over a connected socket: on success the stream owns fd, on failure it
   is closed. Counts one descriptor. The socket's options are as
   relay__stream_tune made them (accepted ones inherit the listener's). */
int relay__stream_open(struct stream **out, struct plane *plane, int fd);

/* Starts to connect. on_event comes with UV_WRITABLE when it is decided; ask
   relay__stream_connected then. 0, or a negative code at once. */
int relay__stream_connect(struct stream **out, struct plane *plane,
                          const struct sockaddr *address, socklen_t length);
/* 0 when connected, else why not. */
int relay__stream_connected(struct stream *stream);

/* Unsent bytes the kernel takes before a socket counts as full. */
#define STREAM_UNSENT_BYTES (384 * 1024)

/* Sets every option that relayed connections need (no delay, no clean close,
   urgent bytes in line, bounded unsent bytes, keepalive, --rcvbuf) on a socket
   that is to connect or to listen. Unix sockets take what applies. */
int relay__stream_tune(const struct plane *plane, int fd);
/* The same without keepalive, which may be for later, on a socket that is to
   connect: each option is a system call for each connection. */
int relay__stream_tune_dial(const struct plane *plane, int fd, int family);

/* Whom events go to from now on. */
void relay__stream_own(struct stream *stream, stream_event_fn on_event,
                       void *owner);

/* Watches for `events`. 0 leaves only the floor that hears of a reset. After a
   reset nothing is watched. 0, or a negative libuv code. */
int relay__stream_watch(struct stream *stream, int events);

/* Closes the descriptor now, by reset unless pardoned, and frees the stream
   when its handle has closed. No event follows. NULL is allowed. */
void relay__stream_close(struct stream *stream);

/*
 * From one loop to another. `move` is called on the thread of the stream's own:
 * that loop forgets it, and what it returns is the same connection, of the
 * plane `to`, on no loop yet. NULL: no memory, and the connection is closed.
 * The descriptor stays counted. Then, on the thread of `to`, `attach`: 0, or a
 * negative code, and it is still to be closed. Nothing happens to one that is
 * attached.
 */
struct stream *relay__stream_move(struct stream *stream, struct plane *to);
int relay__stream_attach(struct stream *stream);

/* The connection ended in order: closing it is not a reset any more. */
void relay__stream_pardon(struct stream *stream);

/* Sends our FIN. 0; UV_EAGAIN, where TLS has bytes before it: again when it is
   writable; or a negative code. */
int relay__stream_shutdown(struct stream *stream);

/* Has the peer asked whether it is alive, somewhat sooner than it may be
   silent, and asked again sooner, each stream of the plane at another time. The
   kernel keeps long timers to two seconds or so: of thousands of peers that
   fell silent together, all would be asked at one moment, and again, and most
   questions be lost in a queue on the way each time. */
void relay__stream_keep_alive(const struct stream *stream);

/* Bytes not yet acknowledged by the peer, those that TLS keeps included; 0 when
   unknown or dead. */
size_t relay__stream_unsent(struct stream *stream);
/* Whether both FINs were sent and ours is not acknowledged yet. The kernel then
   closes without a reset, and if what is on its way is lost, the peer waits for
   ever: such a socket is left to the kernel, which goes on sending. Nothing is
   missing before a FIN of ours, so the peer gets all of it. */
bool relay__stream_is_beyond_reset(const struct stream *stream);
/* Whether the peer has answered nothing for `ms`, not even repeated segments or
   probes of its window, as one that lives and only reads nothing does. Bytes
   are unsent. */
bool relay__stream_is_deaf(const struct stream *stream, uint64_t ms);

/* Bytes that it sends in one segment, for now; 0 where that means nothing. */
unsigned relay__stream_segment(const struct stream *stream);
/* How many bytes it would take at once, as far as is known; at most what the
   kernel is allowed to keep unsent. */
size_t relay__stream_room(struct stream *stream);

/* Reads or writes: > 0 bytes; 0 is the end (recv); UV_EAGAIN; else a negative
   code, and `reset` is set. A 0 after a reset is told as UV_ECONNRESET. */
ssize_t relay__stream_recv(struct stream *stream, void *bytes, size_t size);
ssize_t relay__stream_peek(struct stream *stream, void *bytes, size_t size);
ssize_t relay__stream_send(struct stream *stream, const void *bytes,
                           size_t size);
/* The same between a socket and a pipe. For splice_in, UV_EAGAIN means the
   socket is empty or the pipe full or an urgent byte is in the way, and 0 is
   not believed yet: recv has the last word of an end. UV_EINVAL where splice
   cannot be, over TLS above all. */
ssize_t relay__stream_splice_in(struct stream *stream, int pipe, size_t size);
ssize_t relay__stream_splice_out(struct stream *stream, int pipe, size_t size);

/*
 * Reads one line without taking a byte after it. `line` holds `*length` bytes
 * so far, and at most `size`. 1: a whole line is there, LF included; 0: not
 * yet; UV_EOF; UV_EMSGSIZE when `size` bytes held no LF; else a negative code.
 */
int relay__stream_read_line(struct stream *stream, char *line, size_t *length,
                            size_t size);

/* ---- for tls.c -------------------------------------------------------- */

/* The socket itself, below TLS. */
ssize_t relay__stream_recv_raw(struct stream *stream, void *bytes, size_t size);
ssize_t relay__stream_send_raw(struct stream *stream, const void *bytes,
                               size_t size);
/* It is dead, for this reason unless for another one before. */
void relay__stream_cut(struct stream *stream, int error);

#endif
