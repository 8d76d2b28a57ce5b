/* SPDX-License-Identifier: MIT */
/*
 * A certificate for tests, in files: of itself, for localhost and 127.0.0.1,
 * both ends' authority at once.
 */
#ifndef RELAY_TESTS_TLS_CERTS_H
#define RELAY_TESTS_TLS_CERTS_H

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct tls_certs {
  char directory[32];
  char cert[48];
  char key[48];
};

/* Valid from now on for so many seconds. */
static inline X509 *tls_certs_make(EVP_PKEY *pair, const char *name,
                                   long seconds) {
  X509 *made = X509_new();
  X509_NAME *subject = X509_get_subject_name(made);
  X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name,
                                              "DNS:localhost,IP:127.0.0.1");

  X509_set_version(made, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
  X509_gmtime_adj(X509_getm_notBefore(made), 0);
  X509_gmtime_adj(X509_getm_notAfter(made), seconds);
  X509_set_pubkey(made, pair);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             (const unsigned char *)name, -1, -1, 0);
  X509_set_issuer_name(made, subject);
  X509_add_ext(made, names, -1);
  X509_EXTENSION_free(names);
  X509_sign(made, pair, EVP_sha256());
  return made;
}

/* False when there is no such directory or file to be had. */
static inline bool tls_certs_open(struct tls_certs *certs) {
  EVP_PKEY *pair = EVP_EC_gen("P-256");
  X509 *made = tls_certs_make(pair, "test", 3600);
  FILE *cert, *key;
  mode_t mask = umask(077);
  bool written;

  snprintf(certs->directory, sizeof(certs->directory),
           "/tmp/relay-certs.XXXXXX");
  if (mkdtemp(certs->directory) == NULL)
    return false;
  snprintf(certs->cert, sizeof(certs->cert), "%s/cert.pem", certs->directory);
  snprintf(certs->key, sizeof(certs->key), "%s/key.pem", certs->directory);
  cert = fopen(certs->cert, "w");
  key = fopen(certs->key, "w");
  umask(mask);
  written = cert != NULL && key != NULL && PEM_write_X509(cert, made) == 1 &&
            PEM_write_PrivateKey(key, pair, NULL, NULL, 0, NULL, NULL) == 1;
  if (cert != NULL)
    fclose(cert);
  if (key != NULL)
    fclose(key);
  X509_free(made);
  EVP_PKEY_free(pair);
  ERR_clear_error();
  return written;
}

static inline void tls_certs_close(const struct tls_certs *certs) {
  unlink(certs->cert);
  unlink(certs->key);
  rmdir(certs->directory);
}

#endif
