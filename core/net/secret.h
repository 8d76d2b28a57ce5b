/* SPDX-License-Identifier: MIT */
/*
 * Secrets: random bytes, what is derived from them, and the two ways to get
 * rid of them. A token is `id.secret`: who it is for, and 32 random bytes as
 * base64url. From it both ends derive a key, and only that is kept by the
 * relay:
 *
 *   key = HKDF-SHA256(ikm = secret, salt = "relay/1", info = "token " id)
 *
 * Nothing here is global, and OpenSSL's queue of errors is left as it was. What
 * can fail for want of memory returns UV_ENOMEM, and has wiped what it was to
 * fill.
 */
#ifndef RELAY_SECRET_H
#define RELAY_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECRET_SIZE 32      /* a secret, a key, a digest */
#define SECRET_TEXT_SIZE 43 /* of those, as base64url */
#define TOKEN_ID_MAX 64
/* The longest token, its NUL not counted. */
#define TOKEN_TEXT_MAX (TOKEN_ID_MAX + 1 + SECRET_TEXT_SIZE)

/* ---- bytes ------------------------------------------------------------ */

/* Fills with random bytes from the system. 0, or a negative libuv code. */
int relay__secret_random(void *bytes, size_t count);
/* Overwrites, and is not optimized away. */
void relay__secret_wipe(void *bytes, size_t count);
/* Compares in a time that tells nothing but `count`. */
bool relay__secret_equals(const void *left, const void *right, size_t count);

/* base64url without padding. Writes what `count` bytes need, (4n + 2) / 3
   characters, and a NUL; returns how many characters. */
size_t relay__base64url_encode(char *text, const void *bytes, size_t count);
/* Reads `length` characters into `size` bytes exactly. 0, or UV_EINVAL: not
   base64url, padded, of another size, or with bits set beyond the last byte. */
int relay__base64url_decode(void *bytes, size_t size, const char *text,
                            size_t length);

/* ---- keys ------------------------------------------------------------- */

/* HMAC-SHA256. 0 or UV_ENOMEM. */
int relay__hmac(uint8_t digest[SECRET_SIZE], const void *key, size_t key_size,
                const void *bytes, size_t count);
/* HKDF-SHA256, extract and expand, for one block of output. `info` has less
   than 256 characters. 0 or UV_ENOMEM. */
int relay__hkdf(uint8_t key[SECRET_SIZE], const void *secret,
                size_t secret_size, const void *salt, size_t salt_size,
                const char *info);

/* ---- tokens ----------------------------------------------------------- */

/* Whether `id` is 1 to 64 of A-Z, a-z, 0-9, '_' and '-'. */
bool relay__token_id_is_valid(const char *id);
/* Takes a token apart. 0; UV_EINVAL: not a token; UV_ENOMEM. */
int relay__token_key(const char *token, char id[TOKEN_ID_MAX + 1],
                     uint8_t key[SECRET_SIZE]);
/* Makes a new token for `id`. 0, or a negative libuv code. */
int relay__token_make(const char *id, char token[TOKEN_TEXT_MAX + 1],
                      uint8_t key[SECRET_SIZE]);

#endif
