/* SPDX-License-Identifier: MIT */
/* See binding.h. */
#include "net/binding.h"

#include <stdio.h>
#include <string.h>

#include "net/tls.h"
#include "wire/wire.h"

#define LABEL "EXPORTER-relay/1 data"

int relay__binding_export(struct stream *control, uint8_t key[SECRET_SIZE]) {
  return relay__tls_export(control, LABEL, key);
}

static int fits(int length, size_t size) {
  return length >= 0 && (size_t)length < size ? 0 : UV_EINVAL;
}

int relay__binding_accept(char *identity, size_t size, const char *id) {
  return fits(snprintf(identity, size, "v/%s", id), size);
}

int relay__binding_wait(char *identity, size_t size, const char *session,
                        const char *n) {
  return fits(snprintf(identity, size, "w/%s/%s", session, n), size);
}

int relay__binding_secret(const uint8_t key[SECRET_SIZE], const char *identity,
                          uint8_t secret[SECRET_SIZE]) {
  return relay__hmac(secret, key, SECRET_SIZE, identity, strlen(identity));
}

int relay__binding_mac(const uint8_t key[SECRET_SIZE], const char *verb,
                       const char *session, const char *what,
                       char mac[BINDING_MAC_SIZE]) {
  uint8_t digest[SECRET_SIZE];
  char text[WIRE_LINE_MAX];
  int err = fits(snprintf(text, sizeof(text), "%s %s %s", verb, session, what),
                 sizeof(text));

  if (err == 0)
    err = relay__hmac(digest, key, SECRET_SIZE, text, strlen(text));
  if (err == 0)
    relay__base64url_encode(mac, digest, sizeof(digest));
  return err;
}
