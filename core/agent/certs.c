/* SPDX-License-Identifier: MIT */
/*
 * Certificates: the relay is known by its own, whether or not there is a token,
 * and where it wants one from us, it gets one. What is not believed may be
 * mended while we go on trying: so the files are read again before that.
 */
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/private.h"

#define ERROR_MAX 1024

bool relay__certs_are_wanted(const relay_agent_options *options) {
  return options->tls != 0 || options->tls_ca != NULL ||
         options->tls_name != NULL || options->tls_cert != NULL;
}

static bool copy(const char **to, const char *from) {
  *to = from != NULL ? strdup(from) : NULL;
  return from == NULL || *to != NULL;
}

/* The texts are the host's until they are copied, and never again. */
static int copy_options(struct relay_agent *agent) {
  relay_agent_options *options = &agent->options;
  struct tls_files *files = &agent->files;
  const char *name =
      options->tls_name != NULL ? options->tls_name : options->host;
  bool copied = copy(&files->cert, options->tls_cert) &&
                copy(&files->key, options->tls_key) &&
                copy(&files->ca, options->tls_ca) &&
                copy((const char **)&agent->relay_name, name);

  options->tls_cert = options->tls_key = NULL;
  options->tls_ca = options->tls_name = NULL;
  return copied ? 0 : UV_ENOMEM;
}

static int read_files(struct relay_agent *agent, const char *event) {
  char error[ERROR_MAX];
  int err = relay__tls_context_certify(agent->tls, &agent->files, error,
                                       sizeof(error));

  if (err != 0)
    relay__log(&agent->logger, RELAY_LOG_ERROR, event,
               LOG_TEXT("reason", error));
  return err;
}

int relay__certs_take(struct relay_agent *agent) {
  int err = 0;

  if (relay__certs_are_wanted(&agent->options)) {
    err = copy_options(agent);
    if (err == 0)
      err = read_files(agent, "certificates not read");
  }
  return err;
}

void relay__certs_free(struct relay_agent *agent) {
  free((char *)agent->files.cert);
  free((char *)agent->files.key);
  free((char *)agent->files.ca);
  free(agent->relay_name);
}

void relay__certs_refresh(struct relay_agent *agent) {
  if (agent->disbeliefs != 0)
    read_files(agent, "certificates stay as they were");
}

/* ---- words ------------------------------------------------------------ */

/* What whoever runs the agent can do about it. */
static const char *advise(int verdict) {
  switch (verdict) {
  case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
  case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
  case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
  case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
  case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    return "give the authority that is to be believed (tls-ca)";
  case X509_V_ERR_CERT_HAS_EXPIRED:
    return "the relay needs a new one";
  case X509_V_ERR_CERT_NOT_YET_VALID:
    return "is the clock of this machine right?";
  default:
    return "the relay needs another one";
  }
}

static bool is_another_name(int verdict) {
  return verdict == X509_V_ERR_HOSTNAME_MISMATCH ||
         verdict == X509_V_ERR_IP_ADDRESS_MISMATCH;
}

void relay__certs_explain(const struct relay_agent *agent, int verdict,
                          char *text, size_t size) {
  if (is_another_name(verdict))
    snprintf(text, size,
             "certificate verify failed: name mismatch: it is not for %s; say "
             "whose it is to be (tls-name)",
             agent->relay_name);
  else if (verdict != X509_V_OK)
    snprintf(text, size, "certificate verify failed: %s: %s",
             X509_verify_cert_error_string(verdict), advise(verdict));
  else if (agent->files.cert == NULL)
    snprintf(text, size,
             "it wants a certificate of ours: give one (tls-cert, tls-key)");
  else
    snprintf(text, size,
             "it did not accept our certificate (tls-cert): its log says why");
}
