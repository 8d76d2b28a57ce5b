/* SPDX-License-Identifier: MIT */
/*
 * Bytes through TLS. A connection that ends without close_notify was cut, and
 * whoever reads is told so: "truncated", never "closed".
 */
#include "tls.h"

#ifdef RELAY_WITH_TLS
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <stdlib.h>

const char *relay__lua_tls_reason(void) {
  const char *reason = ERR_reason_error_string(ERR_peek_last_error());

  return reason != NULL ? reason : "it failed";
}

const char *relay__lua_tls_error(const struct socket *s) {
  return s->tls != NULL ? s->tls->error : "closed";
}

static int note_failure(struct tls *tls) {
  int reason = ERR_GET_REASON(ERR_peek_last_error());
  long verified = SSL_get_verify_result(tls->ssl);

#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
  if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
    return IO_TRUNCATED;
#endif
  if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK)
    snprintf(tls->error, sizeof(tls->error), "certificate verify failed: %s",
             X509_verify_cert_error_string(verified));
  else
    snprintf(tls->error, sizeof(tls->error), "TLS: %s",
             relay__lua_tls_reason());
  return IO_TLS;
}

int relay__lua_tls_outcome(struct tls *tls, int result) {
  int error = errno;

  switch (SSL_get_error(tls->ssl, result)) {
  case SSL_ERROR_NONE:
    return IO_DONE;
  case SSL_ERROR_WANT_READ:
    return IO_READ;
  case SSL_ERROR_WANT_WRITE:
    return IO_WRITE;
  case SSL_ERROR_ZERO_RETURN:
    return IO_CLOSED;
  case SSL_ERROR_SYSCALL:
    tls->broken = true;
    if (error == 0)
      return IO_TRUNCATED;
    return error == EPIPE ? IO_CLOSED : error;
  default:
    tls->broken = true;
    return note_failure(tls);
  }
}

int relay__lua_tls_take(struct socket *s, void *bytes, size_t count,
                        size_t *got) {
  if (s->tls->broken)
    return IO_CLOSED;
  ERR_clear_error();
  errno = 0;
  return relay__lua_tls_outcome(s->tls,
                                SSL_read_ex(s->tls->ssl, bytes, count, got));
}

int relay__lua_tls_put(struct socket *s, const void *bytes, size_t count,
                       size_t *sent) {
  if (s->tls->broken || s->tls->shut)
    return IO_CLOSED;
  ERR_clear_error();
  errno = 0;
  return relay__lua_tls_outcome(s->tls,
                                SSL_write_ex(s->tls->ssl, bytes, count, sent));
}

bool relay__lua_tls_is_dirty(const struct socket *s) {
  return s->tls != NULL && SSL_pending(s->tls->ssl) > 0;
}

void relay__lua_tls_shutdown(struct socket *s) {
  struct tls *tls = s->tls;

  if (tls == NULL || tls->broken || tls->shut ||
      !SSL_is_init_finished(tls->ssl))
    return;
  ERR_clear_error();
  tls->shut = true;
  tls->broken = SSL_shutdown(tls->ssl) < 0;
}

void relay__lua_tls_free(struct socket *s) {
  if (s->tls == NULL)
    return;
  relay__lua_tls_shutdown(s);
  SSL_free(s->tls->ssl);
  free(s->tls);
  s->tls = NULL;
}

/* ---- a build without OpenSSL ------------------------------------------ */

#else
#include "socket.h"

static const char missing[] =
    "this relay was built without TLS: install OpenSSL's headers (libssl-dev) "
    "and build it anew";

int relay__lua_socket_starttls(lua_State *L) {
  relay__lua_socket_check(L, "client");
  return luaL_error(L, "%s", missing);
}

int relay__lua_tls_begin(lua_State *L, struct socket *s) {
  relay__lua_socket_close(s);
  return luaL_error(L, "%s", missing);
}

int relay__lua_tls_take(struct socket *s, void *bytes, size_t count,
                        size_t *got) {
  (void)s;
  (void)bytes;
  (void)count;
  (void)got;
  return IO_CLOSED;
}

int relay__lua_tls_put(struct socket *s, const void *bytes, size_t count,
                       size_t *sent) {
  (void)s;
  (void)bytes;
  (void)count;
  (void)sent;
  return IO_CLOSED;
}

bool relay__lua_tls_is_dirty(const struct socket *s) {
  (void)s;
  return false;
}

const char *relay__lua_tls_error(const struct socket *s) {
  (void)s;
  return missing;
}

void relay__lua_tls_shutdown(struct socket *s) {
  (void)s;
}

void relay__lua_tls_free(struct socket *s) {
  (void)s;
}

void relay__lua_tls_close(struct policy *policy) {
  (void)policy;
}
#endif
