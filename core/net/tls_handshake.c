/* SPDX-License-Identifier: MIT */
/*
 * The handshake of TLS over a stream, and what comes of it. See tls.h.
 *
 * While OpenSSL is at it, what it writes is kept: a flight goes in one piece,
 * and a refusal when who refuses wants it to.
 */
#include <openssl/err.h>
#include <string.h>

#include "net/stream.h"
#include "net/tls.h"

/* What OpenSSL calls an alert that came: this and the alert's number. */
#define REASON_ALERT SSL_AD_REASON_OFFSET

/* Alerts by which a peer refuses a key: what OpenSSL says, and what others may.
   Any other is about something else, its own want of memory for one. */
static bool refuses_key(int alert) {
  return alert == SSL_AD_ILLEGAL_PARAMETER || alert == SSL_AD_DECRYPT_ERROR ||
         alert == SSL_AD_ACCESS_DENIED || alert == SSL_AD_UNKNOWN_PSK_IDENTITY;
}

bool relay__tls_is_disbelief(void) {
  int alert = ERR_GET_REASON(ERR_peek_error()) - REASON_ALERT;

  return (alert >= SSL_AD_BAD_CERTIFICATE &&
          alert <= SSL_AD_CERTIFICATE_UNKNOWN) ||
         alert == SSL_AD_UNKNOWN_CA || alert == SSL_AD_CERTIFICATE_REQUIRED;
}

/* Whether one end does not believe the other. */
static bool fails_by_certificate(struct tls *tls, int reason) {
  tls->disbelieved = tls->certified && relay__tls_is_disbelief();
  return tls->disbelieved ||
         (tls->certified &&
          (SSL_get_verify_result(tls->ssl) != X509_V_OK ||
           reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE));
}

/* Why the handshake failed: what the peer said, or what it did not say. */
static int find_failure(struct tls *tls) {
  int reason = ERR_GET_REASON(ERR_peek_error());

  if (tls->stream->reset)
    return tls->stream->error;
  if (reason == ERR_R_MALLOC_FAILURE ||
      SSL_get_verify_result(tls->ssl) == X509_V_ERR_OUT_OF_MEM)
    return UV_ENOMEM;
  if (fails_by_certificate(tls, reason))
    return RELAY_ECERT;
  if (refuses_key(reason - REASON_ALERT) ||
      reason == SSL_R_BINDER_DOES_NOT_VERIFY)
    return RELAY_EKEY;
  return RELAY_ETLS;
}

static int conclude(struct tls *tls, int result) {
  int err = result >= 0 ? relay__tls_flush(tls) : 0;

  if (err != 0 && err != UV_EAGAIN)
    result = err;
  if (result == TLS_DONE || result < 0) {
    tls->phase = result < 0 ? TLS_FAILED : TLS_OPEN;
    relay__secret_wipe(tls->key, sizeof(tls->key));
  }
  return result;
}

int relay__tls_handshake(struct stream *stream) {
  struct tls *tls = stream->tls;
  int status, result = RELAY_ETLS;

  ERR_clear_error();
  tls->phase = TLS_SHAKING;
  status = SSL_do_handshake(tls->ssl);
  switch (SSL_get_error(tls->ssl, status)) {
  case SSL_ERROR_NONE:
    /* By the key and nothing else, or by no key at all. */
    if ((SSL_session_reused(tls->ssl) == 1) != tls->certified)
      result = TLS_DONE;
    break;
  case SSL_ERROR_WANT_READ:
    result = stream->reset ? stream->error : 0;
    break;
  case SSL_ERROR_WANT_CLIENT_HELLO_CB:
    tls->phase = TLS_NAMED;
    result = TLS_IDENTIFIED;
    break;
  default:
    result = find_failure(tls);
  }
  if (result == TLS_DONE)
    tls->drained = SSL_has_pending(tls->ssl) == 0;
  ERR_clear_error();
  return conclude(tls, result);
}

const char *relay__tls_identity(const struct stream *stream) {
  return stream->tls->identity;
}

void relay__tls_settle(struct stream *stream, const uint8_t *key) {
  stream->tls->settled = true;
  if (key != NULL)
    memcpy(stream->tls->key, key, SECRET_SIZE);
}

int relay__tls_export(struct stream *stream, const char *label,
                      uint8_t key[SECRET_SIZE]) {
  struct tls *tls = stream->tls;
  int made;

  if (tls == NULL || tls->phase != TLS_OPEN)
    return UV_EINVAL;
  ERR_clear_error();
  made = SSL_export_keying_material(tls->ssl, key, SECRET_SIZE, label,
                                    strlen(label), NULL, 0, 0);
  ERR_clear_error();
  return made == 1 ? 0 : UV_ENOMEM;
}
