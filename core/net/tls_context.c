/* SPDX-License-Identifier: MIT */
/*
 * What is the same for all TLS streams of one owner: which TLS is spoken, and
 * how OpenSSL gets at the key. Whatever a machine's openssl.cnf says, these
 * settings stand.
 */
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#include "net/tls.h"

#define CIPHER "TLS_AES_128_GCM_SHA256"
#define GROUP "X25519"
/* Of the ClientHello: offered keys (RFC 8446, 4.2.11). */
#define EXTENSION_PSK 41

/* ---- the key ---------------------------------------------------------- */

/* A session that was never held: how OpenSSL takes a key from outside. */
static SSL_SESSION *make_session(SSL *ssl, const uint8_t *key) {
  static const unsigned char suite[] = {0x13, 0x01}; /* CIPHER */
  const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, suite);
  SSL_SESSION *session = cipher != NULL ? SSL_SESSION_new() : NULL;

  if (session != NULL &&
      SSL_SESSION_set1_master_key(session, key, SECRET_SIZE) == 1 &&
      SSL_SESSION_set_cipher(session, cipher) == 1 &&
      SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
    return session;
  SSL_SESSION_free(session);
  return NULL;
}

/* Client: the one key there is, if there is one. After a HelloRetryRequest
   `digest` is settled, and it can only be the one of our one cipher. */
static int on_use_session(SSL *ssl, const EVP_MD *digest,
                          const unsigned char **identity, size_t *length,
                          SSL_SESSION **session) {
  struct tls *tls = SSL_get_app_data(ssl);

  (void)digest;
  *session = NULL;
  if (tls->certified)
    return 1;
  *session = make_session(ssl, tls->key);
  *identity = (const unsigned char *)tls->identity;
  *length = strlen(tls->identity);
  return *session != NULL;
}

/* Server: the key was settled for the identity that came first. A second
   ClientHello may not bring another. Where it is to be the certificate, there
   is no key for anybody. */
static int on_find_session(SSL *ssl, const unsigned char *identity,
                           size_t length, SSL_SESSION **session) {
  struct tls *tls = SSL_get_app_data(ssl);

  *session = NULL;
  if (tls->certified)
    return 1;
  if (length != strlen(tls->identity) ||
      memcmp(identity, tls->identity, length) != 0)
    return 0;
  *session = make_session(ssl, tls->key);
  return *session != NULL;
}

static size_t read_u16(const unsigned char *bytes) {
  return (size_t)bytes[0] << 8 | bytes[1];
}

/* The first identity offered; "" when there is none that could be ours. */
static void read_identity(SSL *ssl, char identity[TLS_IDENTITY_MAX + 1]) {
  const unsigned char *bytes;
  size_t count, length, i;

  identity[0] = '\0';
  if (SSL_client_hello_get0_ext(ssl, EXTENSION_PSK, &bytes, &count) != 1 ||
      count < 4 || read_u16(bytes) > count - 2)
    return;
  length = read_u16(bytes + 2);
  if (length > count - 4 || length > TLS_IDENTITY_MAX)
    return;
  for (i = 0; i < length; i++)
    if (bytes[4 + i] <= ' ' || bytes[4 + i] > '~')
      return;
  memcpy(identity, bytes + 4, length);
  identity[length] = '\0';
}

static int on_client_hello(SSL *ssl, int *alert, void *data) {
  struct tls *tls = SSL_get_app_data(ssl);

  (void)alert, (void)data;
  if (tls->settled)
    return SSL_CLIENT_HELLO_SUCCESS;
  read_identity(ssl, tls->identity);
  return SSL_CLIENT_HELLO_RETRY;
}

/* ---- contexts --------------------------------------------------------- */

static int set_up(SSL_CTX *ctx, bool server) {
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                               SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_clear_options(ctx,
                        SSL_OP_ALLOW_NO_DHE_KEX | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
  /* A peer that sends nothing but records without bytes holds up nobody. */
  SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_read_ahead(ctx, 1); /* or each record takes two reads */
  /* Room for whole records, or a part of one is moved each time; and OpenSSL
     aligns what follows a header. */
  SSL_CTX_set_default_read_buffer_len(ctx, TLS_BATCH_BYTES + sizeof(uint64_t));
  /* With no authority to trust, whatever certificate comes is refused. What
     tls_certificate.c lays over this brings authorities. */
  SSL_CTX_set_verify(ctx, server ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
  if (server) {
    SSL_CTX_set_client_hello_cb(ctx, on_client_hello, NULL);
    SSL_CTX_set_psk_find_session_callback(ctx, on_find_session);
  } else {
    SSL_CTX_set_psk_use_session_callback(ctx, on_use_session);
  }
  return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_ciphersuites(ctx, CIPHER) == 1 &&
         SSL_CTX_set1_groups_list(ctx, GROUP) == 1 &&
         SSL_CTX_set_num_tickets(ctx, 0) == 1 &&
         SSL_CTX_set_max_early_data(ctx, 0) == 1;
}

int relay__tls_context_new(struct tls_context **out, bool server) {
  struct tls_context *context = calloc(1, sizeof(*context));
  bool ok = false;

  if (context == NULL)
    return UV_ENOMEM;
  ERR_clear_error();
  context->server = server;
  context->method = relay__tls_method_new();
  context->ctx = SSL_CTX_new(TLS_method());
  if (context->method != NULL && context->ctx != NULL)
    ok = set_up(context->ctx, server);
  ERR_clear_error();
  if (!ok) {
    relay__tls_context_free(context);
    return UV_ENOMEM;
  }
  *out = context;
  return 0;
}

void relay__tls_context_free(struct tls_context *context) {
  if (context == NULL)
    return;
  SSL_CTX_free(context->ctx);
  SSL_CTX_free(context->certified);
  BIO_meth_free(context->method);
  free(context);
}
