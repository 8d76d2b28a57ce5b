/* SPDX-License-Identifier: MIT */
/*
 * TLS over a stream. See tls.h. OpenSSL reads and writes through the stream's
 * own calls, so a reset is found and remembered as for any other; and writing
 * always succeeds for it, since what the socket does not take is kept in `out`:
 * no record has ever to be asked for twice.
 */
#include "net/tls.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#include "net/container.h"
#include "net/stream.h"

/* ---- towards the socket ----------------------------------------------- */

/* Keeps what the socket did not take; a batch of records, and an alert. */
static int keep(struct tls *tls, const char *bytes, size_t count) {
  char *grown = malloc(tls->out_length + count);

  if (grown == NULL)
    return UV_ENOMEM;
  if (tls->out_length != 0)
    memcpy(grown, tls->out + tls->out_start, tls->out_length);
  memcpy(grown + tls->out_length, bytes, count);
  free(tls->out);
  tls->out = grown;
  tls->out_start = 0;
  tls->out_length += count;
  return 0;
}

int relay__tls_flush(struct tls *tls) {
  ssize_t count;

  if (tls->out_length == 0)
    return 0;
  count = relay__stream_send_raw(tls->stream, tls->out + tls->out_start,
                                 tls->out_length);
  if (count < 0)
    return (int)count;
  tls->out_start += (size_t)count;
  tls->out_length -= (size_t)count;
  if (tls->out_length != 0)
    return UV_EAGAIN;
  free(tls->out);
  tls->out = NULL;
  return 0;
}

/* Sends these, and keeps what the socket does not take. False: the stream is
   dead. */
static bool pass_on(struct tls *tls, const char *bytes, size_t size) {
  ssize_t count = UV_EAGAIN;
  size_t sent;

  if (tls->out_length == 0 && tls->phase != TLS_SHAKING)
    count = relay__stream_send_raw(tls->stream, bytes, size);
  if (count < 0 && count != UV_EAGAIN)
    return false;
  sent = count > 0 ? (size_t)count : 0;
  if (sent < size && keep(tls, bytes + sent, size - sent) != 0) {
    relay__stream_cut(tls->stream, UV_ENOMEM);
    return false;
  }
  return true;
}

static int on_bio_write(BIO *bio, const char *bytes, size_t size,
                        size_t *written) {
  struct tls *tls = BIO_get_data(bio);

  BIO_clear_retry_flags(bio);
  if (tls->batch != NULL && size <= TLS_BATCH_BYTES - tls->batch_length) {
    memcpy(tls->batch + tls->batch_length, bytes, size);
    tls->batch_length += size;
  } else if (!pass_on(tls, bytes, size)) {
    return 0;
  }
  *written = size;
  return 1;
}

static int on_bio_read(BIO *bio, char *bytes, size_t size, size_t *got) {
  struct tls *tls = BIO_get_data(bio);
  size_t most = tls->bulk ? TLS_BATCH_BYTES : TLS_RECORD_WIRE_BYTES;
  ssize_t count =
      relay__stream_recv_raw(tls->stream, bytes, size < most ? size : most);

  BIO_clear_retry_flags(bio);
  if (count == UV_EAGAIN)
    BIO_set_retry_read(bio);
  else if (count == 0) /* asked for more, and there was no close_notify */
    relay__stream_cut(tls->stream, UV_ECONNRESET);
  if (count <= 0)
    return 0;
  *got = (size_t)count;
  return 1;
}

static long on_bio_control(BIO *bio, int command, long number, void *data) {
  (void)bio, (void)number, (void)data;
  return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *relay__tls_method_new(void) {
  BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "relay stream");

  if (method != NULL && BIO_meth_set_write_ex(method, on_bio_write) == 1 &&
      BIO_meth_set_read_ex(method, on_bio_read) == 1 &&
      BIO_meth_set_ctrl(method, on_bio_control) == 1)
    return method;
  BIO_meth_free(method);
  return NULL;
}

/* ---- beginning and end ------------------------------------------------ */

static void on_kick(struct deadline *deadline) {
  struct tls *tls = container_of(deadline, struct tls, kick);
  struct stream *stream = tls->stream;

  if ((tls->asked & UV_READABLE) != 0 && !tls->drained && !stream->reset)
    stream->on_event(stream, UV_READABLE);
}

static void on_kick_closed(struct deadline *deadline) {
  free(container_of(deadline, struct tls, kick));
}

void relay__tls_close(struct tls *tls) {
  SSL_free(tls->ssl);
  ERR_clear_error();
  free(tls->out);
  relay__secret_wipe(tls->key, sizeof(tls->key));
  if (tls->stream->attached)
    relay__deadline_close(&tls->kick, on_kick_closed);
  else
    free(tls);
}

void relay__tls_attach(struct tls *tls) {
  relay__deadline_init(&tls->kick, tls->stream->plane, on_kick);
}

/* OpenSSL knows it by address, in two places. */
int relay__tls_move(struct tls *tls, struct stream *moved) {
  struct tls *other = malloc(sizeof(*other));

  if (other == NULL)
    return UV_ENOMEM;
  *other = *tls;
  other->stream = moved;
  moved->tls = other;
  BIO_set_data(SSL_get_rbio(tls->ssl), other);
  SSL_set_app_data(other->ssl, other); /* there is one already: cannot fail */
  relay__secret_wipe(tls->key, sizeof(tls->key));
  relay__deadline_close(&tls->kick, on_kick_closed);
  return 0;
}

static int set_up(struct tls *tls, struct tls_context *context) {
  BIO *bio;

  ERR_clear_error();
  tls->ssl = SSL_new(context->ctx);
  bio = tls->ssl != NULL ? BIO_new(context->method) : NULL;
  ERR_clear_error();
  if (bio == NULL || SSL_set_app_data(tls->ssl, tls) != 1) {
    BIO_free(bio);
    SSL_free(tls->ssl);
    return UV_ENOMEM;
  }
  BIO_set_data(bio, tls);
  BIO_set_init(bio, 1);
  SSL_set_bio(tls->ssl, bio, bio);
  if (context->server)
    SSL_set_accept_state(tls->ssl);
  else
    SSL_set_connect_state(tls->ssl);
  return 0;
}

static int lay(struct stream *stream, struct tls_context *context,
               struct tls **out) {
  struct tls *tls = calloc(1, sizeof(*tls));
  int err = UV_ENOMEM;

  if (tls != NULL)
    err = set_up(tls, context);
  if (err != 0) {
    free(tls);
    return err;
  }
  tls->stream = stream;
  tls->drained = true;
  stream->tls = *out = tls;
  relay__tls_attach(tls);
  return 0;
}

/* The key that nobody has, for those who are told none. */
int relay__tls_accept(struct stream *stream, struct tls_context *context) {
  uint8_t nobodys[SECRET_SIZE];
  struct tls *tls;
  int err = relay__secret_random(nobodys, sizeof(nobodys));

  if (err == 0)
    err = lay(stream, context, &tls);
  if (err == 0)
    memcpy(tls->key, nobodys, sizeof(tls->key));
  return err;
}

int relay__tls_connect(struct stream *stream, struct tls_context *context,
                       const char *identity, const uint8_t key[SECRET_SIZE]) {
  size_t length = strlen(identity);
  struct tls *tls;
  int err = length > TLS_IDENTITY_MAX ? UV_EINVAL : lay(stream, context, &tls);

  if (err != 0)
    return err;
  memcpy(tls->identity, identity, length + 1);
  memcpy(tls->key, key, sizeof(tls->key));
  return 0;
}

void relay__tls_drop(struct stream *stream) {
  struct tls *tls = stream->tls;

  if (tls == NULL || tls->phase == TLS_OPEN)
    return;
  relay__tls_flush(tls);
  stream->tls = NULL;
  relay__tls_close(tls);
}

/* ---- bytes ------------------------------------------------------------ */

/* Why nothing more came: UV_EAGAIN, 0 for the peer's close_notify, or the
   stream is dead. */
static ssize_t judge(struct tls *tls) {
  struct stream *stream = tls->stream;
  int error = SSL_get_error(tls->ssl, 0);

  if (error == SSL_ERROR_ZERO_RETURN)
    return 0;
  if (error == SSL_ERROR_WANT_READ) {
    tls->drained = true;
    return UV_EAGAIN;
  }
  tls->phase = TLS_FAILED;
  relay__stream_cut(stream, /* unless it was dead before */
                    tls->certified && relay__tls_is_disbelief() ? RELAY_ECERT
                                                                : RELAY_ETLS);
  return stream->error;
}

/* What comes before anything can be read. */
static bool is_open(const struct tls *tls) {
  ERR_clear_error();
  return tls->phase == TLS_OPEN;
}

static ssize_t not_open(const struct tls *tls) {
  return tls->stream->reset ? tls->stream->error : UV_EAGAIN;
}

/* Reads on until there is room for no more, or no more there: so short is
   empty, as it is for a socket. */
ssize_t relay__tls_recv(struct tls *tls, void *bytes, size_t size) {
  size_t length = 0, count = 0;
  ssize_t why = 0;

  if (!is_open(tls))
    return not_open(tls);
  tls->drained = false;
  while (length < size &&
         SSL_read_ex(tls->ssl, (char *)bytes + length, size - length, &count))
    length += count;
  if (length < size)
    why = judge(tls);
  else
    tls->drained = SSL_has_pending(tls->ssl) == 0;
  tls->bulk = length >= TLS_RECORD_BYTES;
  ERR_clear_error();
  return length != 0 ? (ssize_t)length : why;
}

ssize_t relay__tls_peek(struct tls *tls, void *bytes, size_t size) {
  size_t count = 0;
  ssize_t result;

  if (!is_open(tls))
    return not_open(tls);
  tls->drained = false;
  if (SSL_peek_ex(tls->ssl, bytes, size, &count))
    result = (ssize_t)count;
  else
    result = judge(tls);
  ERR_clear_error();
  return result;
}

/* The records of one call are gathered first: a system call for each costs
   more than this copy. Without memory for it they go one by one. */
static void begin_batch(struct tls *tls) {
  struct plane *plane = tls->stream->plane;

  if (plane->batch == NULL)
    plane->batch = malloc(TLS_BATCH_BYTES);
  tls->batch = plane->batch;
  tls->batch_length = 0;
}

static void end_batch(struct tls *tls) {
  const char *batch = tls->batch;

  tls->batch = NULL;
  if (batch != NULL && tls->batch_length != 0)
    pass_on(tls, batch, tls->batch_length);
}

/* As long as the socket takes whole batches. What it leaves of the last one is
   taken all the same. */
ssize_t relay__tls_send(struct tls *tls, const void *bytes, size_t size) {
  size_t taken = 0, count = 0;
  int err = relay__tls_flush(tls);

  if (err != 0 || !is_open(tls))
    return err != 0 ? err : not_open(tls);
  if (size > TLS_RECORD_BYTES)
    begin_batch(tls);
  if (size > TLS_BATCH_RECORDS * TLS_RECORD_BYTES)
    size = TLS_BATCH_RECORDS * TLS_RECORD_BYTES;
  while (taken < size && tls->out_length == 0 && !tls->stream->reset) {
    size_t left = size - taken;

    if (!SSL_write_ex(tls->ssl, (const char *)bytes + taken,
                      left < TLS_RECORD_BYTES ? left : TLS_RECORD_BYTES,
                      &count)) {
      /* A dead socket, or no memory; what came before can still be read. */
      relay__stream_cut(tls->stream, UV_ENOMEM);
      break;
    }
    taken += count;
  }
  end_batch(tls);
  ERR_clear_error();
  return taken != 0 ? (ssize_t)taken : tls->stream->error;
}

int relay__tls_shutdown(struct tls *tls) {
  if (!tls->closed && is_open(tls)) {
    tls->closed = true;
    if (SSL_shutdown(tls->ssl) < 0)
      relay__stream_cut(tls->stream, UV_ENOMEM);
    ERR_clear_error();
  }
  return tls->stream->reset ? tls->stream->error : relay__tls_flush(tls);
}

/* ---- events ----------------------------------------------------------- */

int relay__tls_watch(struct tls *tls, int events) {
  tls->asked = events;
  if ((events & UV_READABLE) != 0 && !tls->drained &&
      !relay__deadline_is_set(&tls->kick))
    relay__deadline_set(&tls->kick, 0);
  return tls->out_length != 0 && tls->phase != TLS_FAILED ? events | UV_WRITABLE
                                                          : events;
}

int relay__tls_event(struct tls *tls, int events) {
  struct stream *stream = tls->stream;

  if ((events & UV_WRITABLE) != 0 && tls->out_length != 0 &&
      tls->phase != TLS_FAILED) {
    if (relay__tls_flush(tls) == 0 &&
        relay__stream_watch(stream, tls->asked) != 0)
      relay__stream_cut(stream, UV_ENOMEM);
    if (stream->reset)
      return UV_READABLE | UV_WRITABLE;
    if (tls->out_length != 0)
      events &= ~UV_WRITABLE;
  }
  return events & tls->asked;
}
