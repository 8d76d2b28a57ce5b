/* SPDX-License-Identifier: MIT */
/*
 * An outgoing connection in the making: tries the addresses it was given, one
 * after the other, has a key proven or a certificate shown where that is
 * wanted, then sends its opening bytes (a protocol line, a PROXY header), and
 * is done: the stream goes to who asked. It keeps no clock: its owner has one,
 * and calls relay__dial_next or relay__dial_cancel.
 */
#ifndef RELAY_DIAL_H
#define RELAY_DIAL_H

#include <netdb.h>

#include "net/stream.h"
#include "net/tls.h"

#define DIAL_OPENING_MAX 512

struct dial;

/* status 0: `stream` is connected, the opening is sent, and it is the
   callee's. Else why it failed, and NULL: what the last peer that was reached
   said, rather than that this machine has no way to another. */
typedef void (*dial_done_fn)(struct dial *dial, int status,
                             struct stream *stream);

struct dial {
  struct plane *plane;
  struct stream *stream; /* NULL: nothing under way */
  const struct addrinfo *rest;
  struct sockaddr_storage address; /* being tried, or reached */
  dial_done_fn on_done;
  void *owner;
  bool connected;
  bool shaken;
  bool takes_reset; /* one that was reset after connecting is done, too: what
                       it sent before is still to be read */
  int error;        /* of the addresses so far */
  size_t opening_sent;
  size_t opening_length;
  char opening[DIAL_OPENING_MAX];
  struct tls_context *tls; /* NULL: plain */
  const char *name;        /* who the peer's certificate has to be for; NULL: a
                              key is proven */
  int verdict;             /* after RELAY_ECERT, as relay__tls_verdict has it */
  uint8_t key[SECRET_SIZE];
  char identity[TLS_IDENTITY_MAX + 1];
};

void relay__dial_init(struct dial *dial, struct plane *plane,
                      dial_done_fn on_done, void *owner);

/* Sets what is sent first. 0, or UV_EMSGSIZE. */
int relay__dial_open_with(struct dial *dial, const void *bytes, size_t count);

/* Before anything is sent, both ends prove this key (tls.h). A peer that does
   not take it is the last that is tried. 0, or UV_EINVAL. */
int relay__dial_secure(struct dial *dial, struct tls_context *context,
                       const char *identity, const uint8_t key[SECRET_SIZE]);

/* The same with certificates in place of a key: the peer's has to be for
   `name`, which must live as long as the dial is under way. */
void relay__dial_certify(struct dial *dial, struct tls_context *context,
                         const char *name);

/* Starts. `rest`, if any, must live as long as the dial is under way. on_done
   runs once, later; or a negative code at once, when every address failed at
   once. */
int relay__dial_start(struct dial *dial, const struct sockaddr *address,
                      socklen_t length, const struct addrinfo *rest);

/* Gives the present address up and goes on with the next; when there is none,
   on_done runs, from here, with UV_ETIMEDOUT. */
void relay__dial_next(struct dial *dial);

/* on_done will not run. Idempotent. */
void relay__dial_cancel(struct dial *dial);

bool relay__dial_busy(const struct dial *dial);

#endif
