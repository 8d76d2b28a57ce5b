/* SPDX-License-Identifier: MIT */
/*
 * See secret.h. HKDF is written out: for one block it is two HMACs.
 */
#include "net/secret.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <uv.h>

#define KEY_SALT "relay/1"
#define KEY_INFO "token "

/* ---- bytes ------------------------------------------------------------ */

int relay__secret_random(void *bytes, size_t count) {
  int err = uv_random(NULL, NULL, bytes, count, 0, NULL);

  if (err != 0)
    relay__secret_wipe(bytes, count);
  return err;
}

void relay__secret_wipe(void *bytes, size_t count) {
  OPENSSL_cleanse(bytes, count);
}

bool relay__secret_equals(const void *left, const void *right, size_t count) {
  return CRYPTO_memcmp(left, right, count) == 0;
}

size_t relay__base64url_encode(char *text, const void *bytes, size_t count) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789-_";
  const uint8_t *from = bytes;
  uint32_t bits = 0;
  unsigned held = 0;
  size_t length = 0;

  for (size_t i = 0; i < count; i++) {
    bits = bits << 8 | from[i];
    for (held += 8; held >= 6; held -= 6)
      text[length++] = letters[bits >> (held - 6) & 63];
  }
  if (held != 0)
    text[length++] = letters[bits << (6 - held) & 63];
  text[length] = '\0';
  return length;
}

/* The six bits of a letter, or -1. */
static int letter_value(char letter) {
  if (letter >= 'A' && letter <= 'Z')
    return letter - 'A';
  if (letter >= 'a' && letter <= 'z')
    return letter - 'a' + 26;
  if (letter >= '0' && letter <= '9')
    return letter - '0' + 52;
  return letter == '-' ? 62 : letter == '_' ? 63 : -1;
}

int relay__base64url_decode(void *bytes, size_t size, const char *text,
                            size_t length) {
  uint8_t *to = bytes;
  uint32_t bits = 0;
  unsigned held = 0;
  size_t count = 0;

  if (length != (4 * size + 2) / 3)
    return UV_EINVAL;
  for (size_t i = 0; i < length; i++) {
    int value = letter_value(text[i]);

    if (value < 0)
      return UV_EINVAL;
    bits = bits << 6 | (uint32_t)value;
    held += 6;
    if (held >= 8) {
      held -= 8;
      to[count++] = (uint8_t)(bits >> held);
    }
  }
  return (bits & ((1u << held) - 1)) == 0 ? 0 : UV_EINVAL;
}

/* ---- keys ------------------------------------------------------------- */

int relay__hmac(uint8_t digest[SECRET_SIZE], const void *key, size_t key_size,
                const void *bytes, size_t count) {
  const unsigned char *made;

  ERR_set_mark();
  /* A NULL key would stand for that of a call before. */
  made = HMAC(EVP_sha256(), key_size != 0 ? key : "", (int)key_size, bytes,
              count, digest, NULL);
  ERR_pop_to_mark();
  if (made != NULL)
    return 0;
  relay__secret_wipe(digest, SECRET_SIZE);
  return UV_ENOMEM;
}

int relay__hkdf(uint8_t key[SECRET_SIZE], const void *secret,
                size_t secret_size, const void *salt, size_t salt_size,
                const char *info) {
  uint8_t extracted[SECRET_SIZE], block[256];
  size_t length = strlen(info);
  int err;

  if (length >= sizeof(block))
    return UV_EINVAL;
  memcpy(block, info, length + 1);
  block[length++] = 1; /* the number of the block, the only one */
  err = relay__hmac(extracted, salt, salt_size, secret, secret_size);
  if (err == 0)
    err = relay__hmac(key, extracted, sizeof(extracted), block, length);
  relay__secret_wipe(extracted, sizeof(extracted));
  return err;
}

/* ---- tokens ----------------------------------------------------------- */

static bool is_id(const char *id, size_t length) {
  if (length == 0 || length > TOKEN_ID_MAX)
    return false;
  for (size_t i = 0; i < length; i++)
    if (letter_value(id[i]) < 0)
      return false;
  return true;
}

bool relay__token_id_is_valid(const char *id) {
  return is_id(id, strlen(id));
}

static int derive(const char *id, const uint8_t secret[SECRET_SIZE],
                  uint8_t key[SECRET_SIZE]) {
  char info[sizeof(KEY_INFO) + TOKEN_ID_MAX] = KEY_INFO;

  memcpy(info + sizeof(KEY_INFO) - 1, id, strlen(id) + 1);
  return relay__hkdf(key, secret, SECRET_SIZE, KEY_SALT, strlen(KEY_SALT),
                     info);
}

int relay__token_key(const char *token, char id[TOKEN_ID_MAX + 1],
                     uint8_t key[SECRET_SIZE]) {
  size_t length = strcspn(token, ".");
  uint8_t secret[SECRET_SIZE];
  int err = UV_EINVAL;

  if (is_id(token, length) && token[length] == '.')
    err = relay__base64url_decode(secret, sizeof(secret), token + length + 1,
                                  strlen(token + length + 1));
  if (err == 0) {
    memcpy(id, token, length);
    id[length] = '\0';
    err = derive(id, secret, key);
  }
  relay__secret_wipe(secret, sizeof(secret));
  return err;
}

int relay__token_make(const char *id, char token[TOKEN_TEXT_MAX + 1],
                      uint8_t key[SECRET_SIZE]) {
  uint8_t secret[SECRET_SIZE];
  size_t length = strlen(id);
  int err = UV_EINVAL;

  if (is_id(id, length))
    err = relay__secret_random(secret, sizeof(secret));
  if (err == 0)
    err = derive(id, secret, key);
  if (err == 0) {
    memcpy(token, id, length + 1);
    token[length] = '.';
    relay__base64url_encode(token + length + 1, secret, sizeof(secret));
  }
  relay__secret_wipe(secret, sizeof(secret));
  return err;
}
