/* SPDX-License-Identifier: MIT */
/*
 * Certificates, the other way to know who is at the other end: reading them,
 * showing ours, and what a peer's says. Whom to believe is in a context of its
 * own, which a stream takes in place of the plain one: what was read before
 * stays with the streams that have it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/stream.h"
#include "net/tls.h"
#include "wire/log.h"

/* Who may have access to a key: its owner, and a group that may read it. */
#define KEY_MODE_MAX 0740
#define HOST_NAME_MAX_LENGTH 255

/* Where to say what is wrong. */
struct complaint {
  char *error;
  size_t size;
  bool asked; /* for a password */
};

static int complain(const struct complaint *to, const char *path,
                    const char *reason) {
  snprintf(to->error, to->size, "%s: %s", path, reason);
  return RELAY_ECERT;
}

/* OpenSSL could not make anything of it. */
static int complain_of_content(const struct complaint *to, const char *path,
                               const char *missing) {
  unsigned long error = ERR_peek_error(); /* the first tells the most */
  const char *words = ERR_reason_error_string(error);
  char text[128];

  if (ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE) {
    snprintf(to->error, to->size, "%s: %s", path, relay_strerror(UV_ENOMEM));
    return UV_ENOMEM;
  }
  if (to->asked)
    return complain(to, path, "it is encrypted; it must not be");
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && words != NULL)
    return complain(to, path, words);
  snprintf(text, sizeof(text), "there is no %s in it", missing);
  return complain(to, path, text);
}

/* ---- reading ---------------------------------------------------------- */

/* Nobody is there to be asked for one. */
static int on_password(char *buffer, int size, int writing, void *data) {
  struct complaint *to = data;

  (void)buffer, (void)size, (void)writing;
  to->asked = true;
  return -1;
}

/* Whether it can be read, and by whom else. */
static int look_at(const struct complaint *to, const char *path, mode_t most) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat about;
  char text[128];
  int err = fd < 0 || fstat(fd, &about) != 0 ? -errno : 0;

  if (fd >= 0)
    close(fd);
  if (err != 0)
    return complain(to, path, relay_strerror(err));
  if (!S_ISREG(about.st_mode))
    return complain(to, path, "it is not a file");
  if ((about.st_mode & 0777 & ~most) == 0)
    return 0;
  snprintf(text, sizeof(text),
           "its mode is %04o: others than its owner and group can read it, or "
           "change it",
           about.st_mode & 0777);
  return complain(to, path, text);
}

static int check_dates(const struct complaint *to, const char *path,
                       const X509 *cert) {
  struct tm until;
  char text[64];

  if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0)
    return complain(to, path, "it is not valid yet");
  if (X509_cmp_current_time(X509_get0_notAfter(cert)) > 0)
    return 0;
  if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &until) != 1)
    return complain(to, path, "it has expired");
  snprintf(text, sizeof(text), "it has expired on %04d-%02d-%02d",
           until.tm_year + 1900, until.tm_mon + 1, until.tm_mday);
  return complain(to, path, text);
}

/* A peer would not believe it: its extensions say for what it may be used. */
static int check_purpose(const struct complaint *to, const char *path,
                         bool server, X509 *cert) {
  int purpose = server ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT;
  int is_fit = X509_check_purpose(cert, purpose, 0);

  if (is_fit > 0)
    return 0;
  if (is_fit < 0)
    return complain_of_content(to, path, "certificate of any use");
  return complain(to, path,
                  server ? "its key usage does not let it be a server's"
                         : "its key usage does not let it be a client's");
}

/* The key comes first: then what is wrong with either is told of that one. */
static int read_own(SSL_CTX *ctx, bool server, const struct tls_files *files,
                    struct complaint *to) {
  X509 *cert;
  int err = look_at(to, files->key, KEY_MODE_MAX);

  if (err == 0)
    err = look_at(to, files->cert, 0777);
  if (err != 0)
    return err;
  SSL_CTX_set_default_passwd_cb(ctx, on_password);
  SSL_CTX_set_default_passwd_cb_userdata(ctx, to);
  if (SSL_CTX_use_PrivateKey_file(ctx, files->key, SSL_FILETYPE_PEM) != 1)
    return complain_of_content(to, files->key, "private key");
  if (SSL_CTX_use_certificate_chain_file(ctx, files->cert) != 1)
    return complain_of_content(to, files->cert, "certificate");
  if (SSL_CTX_check_private_key(ctx) != 1)
    return complain(to, files->key, "it is not the key of the certificate");
  SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL);
  cert = SSL_CTX_get0_certificate(ctx);
  err = check_dates(to, files->cert, cert);
  return err != 0 ? err : check_purpose(to, files->cert, server, cert);
}

/* An authority, or the very certificate that a peer shows. */
static int read_authorities(SSL_CTX *ctx, const char *path,
                            const struct complaint *to) {
  int err = look_at(to, path, 0777);

  if (err != 0)
    return err;
  if (SSL_CTX_load_verify_file(ctx, path) != 1)
    return complain_of_content(to, path, "certificate");
  X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), X509_V_FLAG_PARTIAL_CHAIN);
  return 0;
}

static int read_files(SSL_CTX *ctx, bool server, const struct tls_files *files,
                      struct complaint *to) {
  int err = 0;

  if (files->cert != NULL)
    err = read_own(ctx, server, files, to);
  if (err == 0 && files->ca != NULL)
    err = read_authorities(ctx, files->ca, to);
  else if (err == 0 && !server && SSL_CTX_set_default_verify_paths(ctx) != 1)
    err = complain(to, "the system", "its authorities cannot be read");
  return err;
}

int relay__tls_context_certify(struct tls_context *context,
                               const struct tls_files *files, char *error,
                               size_t size) {
  struct complaint to = {error, size, false};
  SSL_CTX *ctx;
  int err = UV_ENOMEM;

  snprintf(error, size, "%s", relay_strerror(UV_ENOMEM));
  ERR_clear_error();
  ctx = SSL_CTX_new(TLS_method());
  if (ctx != NULL)
    err = read_files(ctx, context->server, files, &to);
  if (err == 0) {
    SSL_CTX *former = context->certified;

    context->certified = ctx;
    context->mutual = context->server && files->ca != NULL;
    ctx = former;
  }
  SSL_CTX_free(ctx);
  ERR_clear_error();
  return err;
}

int relay_tls_check(int is_relay, const char *cert, const char *key,
                    const char *ca, char *error, size_t size) {
  struct tls_context context = {.server = is_relay != 0};
  struct tls_files files = {cert, key, ca};
  int err = relay__tls_context_certify(&context, &files, error, size);

  SSL_CTX_free(context.certified);
  return err;
}

/* ---- on a stream ------------------------------------------------------ */

static bool is_address(const char *name, char *address, size_t size) {
  unsigned char bytes[16];

  snprintf(address, size, "%.*s", (int)strcspn(name, "%"), name);
  return inet_pton(AF_INET, address, bytes) == 1 ||
         inet_pton(AF_INET6, address, bytes) == 1;
}

/* A final dot makes a name absolute; no certificate has it. */
static bool expect_name(SSL *ssl, const char *name) {
  X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
  char text[HOST_NAME_MAX_LENGTH + 1];
  size_t length;

  if (is_address(name, text, sizeof(text)))
    return X509_VERIFY_PARAM_set1_ip_asc(param, text) == 1;
  length = (size_t)snprintf(text, sizeof(text), "%s", name);
  if (text[length - 1] == '.')
    text[--length] = '\0';
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return SSL_set_tlsext_host_name(ssl, text) == 1 &&
         X509_VERIFY_PARAM_set1_host(param, text, length) == 1;
}

static int take_context(struct tls *tls, const struct tls_context *context) {
  tls->certified = true;
  return SSL_set_SSL_CTX(tls->ssl, context->certified) != NULL ? 0 : UV_ENOMEM;
}

int relay__tls_certify(struct stream *stream, struct tls_context *context) {
  struct tls *tls = stream->tls;
  int err;

  ERR_clear_error();
  tls->settled = true;
  err = take_context(tls, context);
  if (context->mutual)
    SSL_set_verify(tls->ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                   NULL);
  ERR_clear_error();
  return err;
}

int relay__tls_connect_named(struct stream *stream, struct tls_context *context,
                             const char *name) {
  static const uint8_t none[SECRET_SIZE];
  size_t length = strlen(name);
  int err = UV_EINVAL;

  if (length != 0 && length <= HOST_NAME_MAX_LENGTH)
    err = relay__tls_connect(stream, context, "", none);
  if (err != 0)
    return err;
  ERR_clear_error();
  err = take_context(stream->tls, context);
  if (err == 0 && !expect_name(stream->tls->ssl, name))
    err = UV_ENOMEM;
  ERR_clear_error();
  if (err != 0)
    relay__tls_drop(stream);
  return err;
}

/* ---- a peer's --------------------------------------------------------- */

int relay__tls_verdict(const struct stream *stream) {
  const struct tls *tls = stream->tls;

  return tls != NULL ? (int)SSL_get_verify_result(tls->ssl) : X509_V_OK;
}

/* Whether it is text that can stand in a log as it is. */
static bool can_be_shown(const char *text, size_t length) {
  size_t at = 0, step = 1;

  while (at < length && step != 0) {
    step = relay__log_shown(text + at);
    at += step;
  }
  return at == length;
}

static int read_name(const X509 *cert, char name[TLS_NAME_MAX + 1]) {
  X509_NAME *subject = X509_get_subject_name(cert);
  int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  unsigned char *text = NULL;
  int length, err = RELAY_ECERT;

  if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
    return RELAY_ECERT;
  length = ASN1_STRING_to_UTF8(
      &text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  if (length < 0 && ERR_GET_REASON(ERR_peek_error()) == ERR_R_MALLOC_FAILURE)
    err = UV_ENOMEM;
  if (length > 0 && length <= TLS_NAME_MAX &&
      can_be_shown((const char *)text, (size_t)length)) {
    memcpy(name, text, (size_t)length);
    name[length] = '\0';
    err = 0;
  }
  OPENSSL_free(text);
  return err;
}

int relay__tls_peer(const struct stream *stream, char name[TLS_NAME_MAX + 1],
                    char fingerprint[TLS_FINGERPRINT_SIZE]) {
  const X509 *cert = SSL_get0_peer_certificate(stream->tls->ssl);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  int err = cert != NULL ? 0 : RELAY_ECERT;

  ERR_clear_error();
  if (err == 0 && X509_digest(cert, EVP_sha256(), digest, &length) != 1)
    err = UV_ENOMEM;
  if (err == 0)
    err = read_name(cert, name);
  ERR_clear_error();
  for (unsigned i = 0; err == 0 && i < length; i++)
    snprintf(fingerprint + (size_t)2 * i, 3, "%02x", digest[i]);
  return err;
}
