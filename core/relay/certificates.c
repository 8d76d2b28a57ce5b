/* SPDX-License-Identifier: MIT */
/*
 * The relay's certificate, its key, and the authorities that agents'
 * certificates have to come from: read at the start, and again when the host
 * says so. What cannot be used changes nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"

#define ERROR_MAX 1024

static int copy(const char **path, const char **option) {
  if (*option == NULL)
    return 0;
  *option = *path = strdup(*option);
  return *path != NULL ? 0 : UV_ENOMEM;
}

int relay__certificates_init(struct relay *relay) {
  relay_options *options = &relay->options;
  struct tls_files *files = &relay->files;
  char error[ERROR_MAX];
  int err;

  if (options->tls_cert == NULL)
    return 0;
  err = copy(&files->cert, &options->tls_cert);
  if (err == 0)
    err = copy(&files->key, &options->tls_key);
  if (err == 0)
    err = copy(&files->ca, &options->tls_client_ca);
  if (err != 0)
    return err;
  err = relay__tls_context_certify(relay->tls, files, error, sizeof(error));
  if (err != 0)
    relay__log(&relay->logger, RELAY_LOG_ERROR, "certificates not read",
               LOG_TEXT("reason", error));
  return err;
}

void relay__certificates_free(struct relay *relay) {
  free((char *)relay->files.cert);
  free((char *)relay->files.key);
  free((char *)relay->files.ca);
}

int relay_reload_certificates(relay_t *r, char *error, size_t size) {
  char reason[ERROR_MAX] = "there are no certificates";
  int err = UV_EINVAL;

  if (r->files.cert != NULL && !r->closing)
    err = relay__tls_context_certify(r->tls, &r->files, reason, sizeof(reason));
  if (err != 0) {
    snprintf(error, size, "%s", reason);
    relay__log(&r->logger, RELAY_LOG_ERROR, "certificates stay as they were",
               LOG_TEXT("reason", reason));
    return err;
  }
  relay__log(&r->logger, RELAY_LOG_INFO, "certificates read",
             LOG_TEXT("file", r->files.cert));
  return 0;
}
