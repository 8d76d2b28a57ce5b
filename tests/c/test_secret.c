/* SPDX-License-Identifier: MIT */
/* Secrets: digests and keys by their published vectors, base64url, tokens. */
#include "check.h"
#include "net/secret.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <uv.h>

static const char *hex_of(const uint8_t *bytes, size_t count) {
  static char text[2 * 256 + 1];

  for (size_t i = 0; i < count; i++)
    snprintf(text + 2 * i, 3, "%02x", bytes[i]);
  return text;
}

static const char *hmac_of(const char *key, const char *text) {
  static uint8_t digest[SECRET_SIZE];

  CHECK_INT(0, relay__hmac(digest, key, strlen(key), text, strlen(text)));
  return hex_of(digest, sizeof digest);
}

/* RFC 4231, cases 1, 2 and 6; and an empty key. */
TEST(hmac_is_as_published) {
  uint8_t digest[SECRET_SIZE];
  char key[132] = "";

  memset(key, 0x0b, 20);
  CHECK_STR("b0344c61d8db38535ca8afceaf0bf12b"
            "881dc200c9833da726e9376c2e32cff7",
            hmac_of(key, "Hi There"));
  CHECK_STR("5bdcc146bf60754e6a042426089575c7"
            "5a003f089d2739839dec58b964ec3843",
            hmac_of("Jefe", "what do ya want for nothing?"));
  memset(key, 0xaa, 131);
  key[131] = '\0';
  CHECK_STR(
      "60e431591ee0b67f0d8a26aacbf5b77f"
      "8e0bc6213728c5140546040f0ee37f54",
      hmac_of(key, "Test Using Larger Than Block-Size Key - Hash Key First"));
  CHECK_INT(0, relay__hmac(digest, NULL, 0, "", 0));
  CHECK_STR("b613679a0814d9ec772f95d778c35fc5"
            "ff1697c493715653c6c712144292c5ad",
            hex_of(digest, sizeof digest));
}

/* RFC 5869, case 1, the first block of it. */
TEST(hkdf_is_as_published) {
  static const char info[] = "\xf0\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9";
  uint8_t secret[22], salt[13], key[SECRET_SIZE];
  char longest[257];

  memset(secret, 0x0b, sizeof secret);
  for (unsigned i = 0; i < sizeof salt; i++)
    salt[i] = (uint8_t)i;
  CHECK_INT(0,
            relay__hkdf(key, secret, sizeof secret, salt, sizeof salt, info));
  CHECK_STR("3cb25f25faacd57a90434f64d0362f2a"
            "2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
            hex_of(key, sizeof key));
  memset(longest, 'a', sizeof longest);
  longest[256] = '\0';
  CHECK_INT(UV_EINVAL, relay__hkdf(key, secret, 1, salt, 1, longest));
  CHECK_INT(0, relay__hkdf(key, secret, 1, salt, 1, longest + 1));
}

/* RFC 4648, without its padding; and both letters that only this alphabet
   has. */
TEST(base64url_is_as_published) {
  static const char *const texts[][2] = {{"", ""},
                                         {"f", "Zg"},
                                         {"fo", "Zm8"},
                                         {"foo", "Zm9v"},
                                         {"foob", "Zm9vYg"},
                                         {"fooba", "Zm9vYmE"},
                                         {"foobar", "Zm9vYmFy"},
                                         {"\xfb\xff\xbf", "-_-_"}};
  char text[16], bytes[16];

  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    size_t count = strlen(texts[i][0]), length = strlen(texts[i][1]);

    CHECK_INT(length, relay__base64url_encode(text, texts[i][0], count));
    CHECK_STR(texts[i][1], text);
    CHECK_INT(0, relay__base64url_decode(bytes, count, text, length));
    CHECK_MEM(texts[i][0], bytes, count);
  }
}

static int decode(size_t size, const char *text) {
  char bytes[64];

  return relay__base64url_decode(bytes, size, text, strlen(text));
}

TEST(base64url_takes_one_spelling_only) {
  CHECK_INT(0, decode(2, "Zm8"));
  CHECK_INT(UV_EINVAL, decode(2, "Zm9")); /* bits beyond the last byte */
  CHECK_INT(UV_EINVAL, decode(1, "Zh"));
  CHECK_INT(UV_EINVAL, decode(2, "Zm8="));
  CHECK_INT(UV_EINVAL, decode(2, "Zm8\n"));
  CHECK_INT(UV_EINVAL, decode(2, "Zm"));
  CHECK_INT(UV_EINVAL, decode(2, "Zm8A"));
  CHECK_INT(UV_EINVAL, decode(3, "Zm+v"));
  CHECK_INT(UV_EINVAL, decode(3, "Zm/v"));
  CHECK_INT(UV_EINVAL, decode(3, "Zm v"));
  CHECK_INT(UV_EINVAL, decode(3, "Zm\xc3v"));
}

/* ---- tokens ----------------------------------------------------------- */

static char id[TOKEN_ID_MAX + 1];
static uint8_t key[SECRET_SIZE];

#define SECRET_ONE "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define SECRET_TWO "__________________________________________8"
#define ID_LONGEST                                                             \
  "A-z_09A-z_09A-z_09A-z_09A-z_09A-z_09A-z_09A-z_09A-z_09A-z_09abcd"

/* As `openssl kdf -keylen 32 … HKDF` makes them. */
TEST(keys_are_derived_from_tokens) {
  CHECK_INT(0, relay__token_key("db." SECRET_ONE, id, key));
  CHECK_STR("db", id);
  CHECK_STR("1296d69df98ddb3ab8fe89318edb1e92"
            "94dde2cdab467432ac069d275465b975",
            hex_of(key, sizeof key));
  CHECK_INT(0, relay__token_key(ID_LONGEST "." SECRET_TWO, id, key));
  CHECK_STR(ID_LONGEST, id);
  CHECK_STR("d3da4b4a59a3bae739fbe4d3c974ef90"
            "76c11be0781d74e640e7d55912bb5c6f",
            hex_of(key, sizeof key));
}

TEST(what_is_no_token_is_refused) {
  static const char *const texts[] = {"",
                                      ".",
                                      "db",
                                      "db.",
                                      "." SECRET_ONE,
                                      "d b." SECRET_ONE,
                                      "d\xc3\xa4." SECRET_ONE,
                                      "a.b." SECRET_ONE,
                                      ID_LONGEST "e." SECRET_ONE,
                                      "db." SECRET_ONE "A",
                                      "db." SECRET_ONE "=",
                                      "db." SECRET_ONE "\n",
                                      "db. " SECRET_ONE,
                                      "db.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGB"};

  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    CHECK_INT(UV_EINVAL, relay__token_key(texts[i], id, key));
  CHECK(!relay__token_id_is_valid(""));
  CHECK(!relay__token_id_is_valid("a b"));
  CHECK(!relay__token_id_is_valid(ID_LONGEST "e"));
  CHECK(relay__token_id_is_valid(ID_LONGEST));
}

TEST(tokens_are_made) {
  char token[TOKEN_TEXT_MAX + 1], other[TOKEN_TEXT_MAX + 1];
  uint8_t made[SECRET_SIZE];

  CHECK_INT(0, relay__token_make("db-1", token, made));
  CHECK_INT(strlen("db-1.") + SECRET_TEXT_SIZE, strlen(token));
  CHECK_INT(0, relay__token_key(token, id, key));
  CHECK_STR("db-1", id);
  CHECK_MEM(made, key, SECRET_SIZE);
  CHECK_INT(0, relay__token_make("db-1", other, made));
  CHECK(strcmp(token, other) != 0);
  CHECK_INT(0, relay__token_make(ID_LONGEST, token, made));
  CHECK_INT(TOKEN_TEXT_MAX, strlen(token));
  CHECK_INT(UV_EINVAL, relay__token_make("", token, made));
  CHECK_INT(UV_EINVAL, relay__token_make("a.b", token, made));
}

TEST(secrets_are_compared_and_wiped) {
  uint8_t left[3] = {1, 2, 3}, right[3] = {1, 2, 3};
  static const uint8_t zeros[3];

  CHECK(relay__secret_equals(left, right, 3));
  right[2] = 4;
  CHECK(!relay__secret_equals(left, right, 3));
  CHECK(relay__secret_equals(left, right, 2));
  relay__secret_wipe(left, 3);
  CHECK_MEM(zeros, left, 3);
}

/* The host's queue of errors is its own. */
TEST(errors_of_the_host_stay) {
  ERR_clear_error();
  ERR_raise(ERR_LIB_USER, 77);
  CHECK_INT(0, relay__token_key("db." SECRET_ONE, id, key));
  CHECK_INT(77, ERR_GET_REASON(ERR_get_error()));
  CHECK_INT(0, ERR_get_error());
}

int main(void) {
  RUN(hmac_is_as_published);
  RUN(hkdf_is_as_published);
  RUN(base64url_is_as_published);
  RUN(base64url_takes_one_spelling_only);
  RUN(keys_are_derived_from_tokens);
  RUN(what_is_no_token_is_refused);
  RUN(tokens_are_made);
  RUN(secrets_are_compared_and_wiped);
  RUN(errors_of_the_host_stay);
  return check_report();
}
