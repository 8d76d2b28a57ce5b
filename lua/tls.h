/* SPDX-License-Identifier: MIT */
/*
 * TLS of a socket, for the two files that know OpenSSL: tls.c moves bytes, and
 * handshake.c begins.
 */
#ifndef RELAY_LUA_TLS_H
#define RELAY_LUA_TLS_H

#ifdef RELAY_WITH_TLS
#include <openssl/ssl.h>

#include "socket.h"

struct tls {
  SSL *ssl;
  bool broken; /* no call but SSL_free is allowed any more */
  bool shut;   /* close_notify was sent */
  char error[256];
};

/* What the result of a call comes to, and notes why. */
int relay__lua_tls_outcome(struct tls *tls, int result);
/* The last entry of OpenSSL's queue, in words. */
const char *relay__lua_tls_reason(void);

#endif
#endif
