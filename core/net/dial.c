/* SPDX-License-Identifier: MIT */
/*
 * An outgoing connection in the making; see dial.h.
 */
#include "net/dial.h"

#include <string.h>

#include "net/farewell.h"

static void on_dial_event(struct stream *stream, int events);

void relay__dial_init(struct dial *dial, struct plane *plane,
                      dial_done_fn on_done, void *owner) {
  memset(dial, 0, sizeof(*dial));
  dial->plane = plane;
  dial->on_done = on_done;
  dial->owner = owner;
}

int relay__dial_open_with(struct dial *dial, const void *bytes, size_t count) {
  if (count > sizeof(dial->opening))
    return UV_EMSGSIZE;
  if (count > 0)
    memcpy(dial->opening, bytes, count);
  dial->opening_length = count;
  return 0;
}

int relay__dial_secure(struct dial *dial, struct tls_context *context,
                       const char *identity, const uint8_t key[SECRET_SIZE]) {
  size_t length = strlen(identity);

  if (length > TLS_IDENTITY_MAX)
    return UV_EINVAL;
  dial->tls = context;
  dial->name = NULL;
  memcpy(dial->identity, identity, length + 1);
  memcpy(dial->key, key, SECRET_SIZE);
  return 0;
}

void relay__dial_certify(struct dial *dial, struct tls_context *context,
                         const char *name) {
  dial->tls = context;
  dial->name = name;
}

/* Starts with one address. */
static int try_address(struct dial *dial, const struct sockaddr *address,
                       socklen_t length) {
  if (length > sizeof(dial->address))
    return UV_EINVAL;
  memset(&dial->address, 0, sizeof(dial->address));
  memcpy(&dial->address, address, length);
  dial->connected = dial->shaken = false;
  dial->opening_sent = 0;
  int status =
      relay__stream_connect(&dial->stream, dial->plane, address, length);
  if (status != 0) {
    dial->stream = NULL;
    return status;
  }
  relay__stream_own(dial->stream, on_dial_event, dial);
  status = relay__stream_watch(dial->stream, UV_WRITABLE);
  if (status != 0) {
    relay__stream_close(dial->stream);
    dial->stream = NULL;
  }
  return status;
}

/* This machine has no such address or no way to it: no peer's word. */
static bool is_local(int status) {
  return status == UV_ENETUNREACH || status == UV_EADDRNOTAVAIL ||
         status == UV_EAFNOSUPPORT || status == UV_EINVAL;
}

/* Goes on with the addresses that are left. `status`: why the last failed. 0,
   or what to tell of all of them. */
static int try_rest(struct dial *dial, int status) {
  while (status != 0) {
    const struct addrinfo *next = dial->rest;

    if (dial->error == 0 || !is_local(status))
      dial->error = status;
    if (next == NULL)
      return dial->error;
    dial->rest = next->ai_next;
    status = try_address(dial, next->ai_addr, next->ai_addrlen);
  }
  return 0;
}

/* Nobody needs the key any more. */
static void finish(struct dial *dial, int status, struct stream *stream) {
  relay__secret_wipe(dial->key, sizeof(dial->key));
  dial->on_done(dial, status, stream);
}

/* The present address failed. */
static void fail_address(struct dial *dial, int status) {
  dial->verdict = relay__tls_verdict(dial->stream);
  if (status == RELAY_ECERT) /* the peer is told that, for its log */
    relay__farewell(dial->stream);
  else
    relay__stream_close(dial->stream);
  dial->stream = NULL;
  if (status == RELAY_EKEY || status == RELAY_ECERT)
    dial->rest = NULL;
  status = try_rest(dial, status);
  if (status != 0)
    finish(dial, status, NULL);
}

/* Sends what is left of the opening. 0 when all is sent; UV_EAGAIN. */
static int send_opening(struct dial *dial) {
  while (dial->opening_sent < dial->opening_length) {
    ssize_t count =
        relay__stream_send(dial->stream, dial->opening + dial->opening_sent,
                           dial->opening_length - dial->opening_sent);
    if (count < 0)
      return (int)count;
    if (count == 0)
      return UV_EAGAIN;
    dial->opening_sent += (size_t)count;
  }
  return 0;
}

static int begin_tls(struct dial *dial) {
  if (dial->name != NULL)
    return relay__tls_connect_named(dial->stream, dial->tls, dial->name);
  return relay__tls_connect(dial->stream, dial->tls, dial->identity, dial->key);
}

/* Goes on with the handshake. 0 when there is none to do; UV_EAGAIN. */
static int shake(struct dial *dial) {
  int status = 0;

  if (dial->tls == NULL || dial->shaken)
    return 0;
  if (dial->stream->tls == NULL)
    status = begin_tls(dial);
  if (status == 0)
    status = relay__tls_handshake(dial->stream);
  if (status < 0)
    return status;
  dial->shaken = status == TLS_DONE;
  status = relay__stream_watch(dial->stream,
                               dial->shaken ? UV_WRITABLE : UV_READABLE);
  return status == 0 && !dial->shaken ? UV_EAGAIN : status;
}

static void on_dial_event(struct stream *stream, int events) {
  struct dial *dial = stream->owner;
  (void)events;
  int status = 0;
  if (!dial->connected) {
    status = relay__stream_connected(stream);
    if (status == UV_EAGAIN)
      return;
    dial->connected = status == 0;
  }
  if (status == 0)
    status = shake(dial);
  if (status == 0)
    status = send_opening(dial);
  if (status == UV_EAGAIN)
    return; /* still watched */
  if (status != 0 && !(dial->takes_reset && status == UV_ECONNRESET)) {
    fail_address(dial, status);
    return;
  }
  dial->stream = NULL;
  dial->rest = NULL;
  finish(dial, 0, stream);
}

int relay__dial_start(struct dial *dial, const struct sockaddr *address,
                      socklen_t length, const struct addrinfo *rest) {
  int status;

  dial->rest = rest;
  dial->error = 0;
  status = try_rest(dial, try_address(dial, address, length));
  if (status != 0)
    relay__secret_wipe(dial->key, sizeof(dial->key));
  return status;
}

void relay__dial_next(struct dial *dial) {
  if (dial->stream != NULL)
    fail_address(dial, UV_ETIMEDOUT);
}

void relay__dial_cancel(struct dial *dial) {
  relay__stream_close(dial->stream);
  dial->stream = NULL;
  dial->rest = NULL;
  relay__secret_wipe(dial->key, sizeof(dial->key));
}

bool relay__dial_busy(const struct dial *dial) {
  return dial->stream != NULL;
}
