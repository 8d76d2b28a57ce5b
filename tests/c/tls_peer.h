/* SPDX-License-Identifier: MIT */
/*
 * A TLS peer of the tests' own: OpenSSL over a plain socket, set up here and
 * not by the library, so that it can also do what the library never would.
 */
#ifndef RELAY_TESTS_TLS_PEER_H
#define RELAY_TESTS_TLS_PEER_H

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "rig.h"

struct tls_peer {
  SSL_CTX *ctx;
  SSL *ssl;
  const char *identity; /* NULL: no key is offered */
  size_t identity_length;
  uint8_t key[SECRET_SIZE];
  int tickets; /* that came */
};

static inline int on_peer_session(SSL *ssl, const EVP_MD *digest,
                                  const unsigned char **identity,
                                  size_t *length, SSL_SESSION **out) {
  static const unsigned char suite[] = {0x13, 0x01};
  struct tls_peer *peer = SSL_get_app_data(ssl);

  (void)digest;
  *out = NULL;
  if (peer->identity == NULL)
    return 1;
  *out = SSL_SESSION_new();
  SSL_SESSION_set1_master_key(*out, peer->key, sizeof(peer->key));
  SSL_SESSION_set_cipher(*out, SSL_CIPHER_find(ssl, suite));
  SSL_SESSION_set_protocol_version(*out, TLS1_3_VERSION);
  *identity = (const unsigned char *)peer->identity;
  *length = peer->identity_length;
  return 1;
}

static inline int on_peer_ticket(SSL *ssl, SSL_SESSION *session) {
  struct tls_peer *peer = SSL_get_app_data(ssl);

  (void)session;
  peer->tickets++;
  return 0;
}

/* A client with a key, or without one; `fd` stays the caller's. */
static inline void tls_peer_open(struct tls_peer *peer, int fd,
                                 const char *identity, const uint8_t *key) {
  memset(peer, 0, sizeof(*peer));
  peer->identity = identity;
  peer->identity_length = identity != NULL ? strlen(identity) : 0;
  if (key != NULL)
    memcpy(peer->key, key, sizeof(peer->key));
  peer->ctx = SSL_CTX_new(TLS_method());
  SSL_CTX_set_mode(peer->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_psk_use_session_callback(peer->ctx, on_peer_session);
  SSL_CTX_set_session_cache_mode(peer->ctx, SSL_SESS_CACHE_CLIENT |
                                                SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(peer->ctx, on_peer_ticket);
  peer->ssl = SSL_new(peer->ctx);
  SSL_set_app_data(peer->ssl, peer);
  SSL_set_fd(peer->ssl, fd);
  SSL_set_connect_state(peer->ssl);
}

static inline void tls_peer_close(struct tls_peer *peer) {
  SSL_free(peer->ssl);
  SSL_CTX_free(peer->ctx);
  ERR_clear_error();
}

/* Goes on with the handshake: 1 done, 0 not yet, < 0 failed; the alert that
   came, if one did, as its negative number. */
static inline int tls_peer_shake(struct tls_peer *peer) {
  int status, reason;

  ERR_clear_error();
  status = SSL_do_handshake(peer->ssl);
  if (status == 1)
    return 1;
  if (SSL_get_error(peer->ssl, status) == SSL_ERROR_WANT_READ)
    return 0;
  reason = ERR_GET_REASON(ERR_peek_error());
  ERR_clear_error();
  return reason > SSL_AD_REASON_OFFSET ? SSL_AD_REASON_OFFSET - reason : -1000;
}

/* Sends all of it as one record, or as many as it takes. */
static inline void tls_peer_send(struct tls_peer *peer, const void *bytes,
                                 size_t count) {
  size_t sent = 0, step = 0;

  while (sent < count) {
    ERR_clear_error();
    if (!CHECK(SSL_write_ex(peer->ssl, (const char *)bytes + sent, count - sent,
                            &step)))
      return;
    sent += step;
  }
}

#endif
