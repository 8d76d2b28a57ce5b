/* SPDX-License-Identifier: MIT */
/*
 * A listening socket on an owned descriptor. Accepts with accept4 under a
 * budget per turn, so that a full backlog does not starve live flows, and
 * never accepts what it cannot keep: where descriptors are short it pauses and
 * the backlog waits in the kernel.
 */
#ifndef RELAY_LISTENER_H
#define RELAY_LISTENER_H

#include "net/plane.h"
#include "net/stream.h"

struct listener;

/* Asked before each accept: false leaves the rest in the backlog and pauses. */
typedef bool (*listener_admit_fn)(struct listener *listener);
/* A connection. The stream is the callee's. `from` is unmapped. */
typedef void (*listener_accept_fn)(struct listener *listener,
                                   struct stream *stream,
                                   const struct sockaddr *from);

struct listener {
  uv_poll_t poll;
  struct plane *plane;
  int fd;
  bool paused;
  struct deadline retry; /* after EMFILE and its kin */
  listener_admit_fn admit;
  listener_accept_fn on_accept;
  void (*on_closed)(struct listener *listener); /* free it here */
  void *owner;
  struct sockaddr_storage address; /* as bound */
};

/*
 * Binds and listens: `address` given means listen(2) has succeeded. Embedded
 * in its owner. Counts one descriptor. 0, or a negative libuv code, and then
 * nothing is open.
 */
int relay__listener_open(struct listener *listener, struct plane *plane,
                         const struct sockaddr *address,
                         listener_admit_fn admit, listener_accept_fn on_accept,
                         void *owner);

/* Stops accepting; idempotent. resume takes up what the backlog holds. */
void relay__listener_pause(struct listener *listener);
void relay__listener_resume(struct listener *listener);

/* The socket is closed at once; on_closed runs later, from the loop. */
void relay__listener_close(struct listener *listener,
                           void (*on_closed)(struct listener *listener));

/* Binds [::] dual-stack, or 0.0.0.0 where there is no IPv6, for host NULL;
   else the literal host. Fills `address` for relay__listener_open. 0 or
   UV_EINVAL. */
int relay__listener_host(const char *host, unsigned port,
                         struct sockaddr_storage *address);

#endif
