/* SPDX-License-Identifier: MIT */
/*
 * What binds a data connection to its control connection: a key that only the
 * two ends of the control connection's TLS have, and what is made of it. The
 * derivations are specified, with vectors, in docs/protocol.md.
 */
#ifndef RELAY_BINDING_H
#define RELAY_BINDING_H

#include "net/secret.h"
#include "net/stream.h"

/* Room for "w/", a session, "/", a number, and the end. */
#define BINDING_IDENTITY_SIZE 96
#define BINDING_MAC_SIZE (SECRET_TEXT_SIZE + 1)

/* The key of a control connection whose handshake is done. 0, UV_EINVAL,
   UV_ENOMEM. */
int relay__binding_export(struct stream *control, uint8_t key[SECRET_SIZE]);

/* Who a data connection says it is. 0, or UV_EINVAL: too long. */
int relay__binding_accept(char *identity, size_t size, const char *id);
int relay__binding_wait(char *identity, size_t size, const char *session,
                        const char *n);

/* The key that this identity has to prove. 0 or UV_ENOMEM. */
int relay__binding_secret(const uint8_t key[SECRET_SIZE], const char *identity,
                          uint8_t secret[SECRET_SIZE]);

/* The `mac` of a plain data connection's line: its verb, the session, and the
   id or number. 0 or a negative code. */
int relay__binding_mac(const uint8_t key[SECRET_SIZE], const char *verb,
                       const char *session, const char *what,
                       char mac[BINDING_MAC_SIZE]);

#endif
