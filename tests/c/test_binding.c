/* SPDX-License-Identifier: MIT */
/*
 * Keys as docs/protocol.md specifies them: runs its vectors of keys, which were
 * made by another hand. Fails if there are none.
 */
#include "check.h"
#include "net/binding.h"

#include <stdlib.h>

#ifndef PROTOCOL_PATH
#define PROTOCOL_PATH "docs/protocol.md"
#endif

static char document[256 * 1024];
static unsigned tokens, secrets, macs;

static void read_hex(const char *text, uint8_t bytes[SECRET_SIZE]) {
  for (size_t i = 0; i < SECRET_SIZE; i++)
    bytes[i] =
        (uint8_t)strtoul((char[]){text[2 * i], text[2 * i + 1], 0}, NULL, 16);
}

static const char *hex_of(const uint8_t bytes[SECRET_SIZE]) {
  static char text[2 * SECRET_SIZE + 1];

  for (size_t i = 0; i < SECRET_SIZE; i++)
    snprintf(text + 2 * i, 3, "%02x", bytes[i]);
  return text;
}

static void run_token(const char *line) {
  char token[128], expected_id[80], expected[80], id[TOKEN_ID_MAX + 1] = "";
  uint8_t key[SECRET_SIZE] = {0};

  if (!CHECK_INT(3, sscanf(line, "token %127s -> id=%79s key=%79s", token,
                           expected_id, expected)))
    return;
  CHECK_INT(0, relay__token_key(token, id, key));
  CHECK_STR(expected_id, id);
  CHECK_STR(expected, hex_of(key));
  tokens++;
}

/* The identity is also what the library makes of its parts. */
static void check_identity(const char *identity) {
  char made[BINDING_IDENTITY_SIZE] = "", session[64], n[32];

  if (identity[0] == 'v')
    CHECK_INT(0, relay__binding_accept(made, sizeof(made), identity + 2));
  else if (CHECK_INT(2, sscanf(identity, "w/%63[^/]/%31s", session, n)))
    CHECK_INT(0, relay__binding_wait(made, sizeof(made), session, n));
  CHECK_STR(identity, made);
}

static void run_secret(const char *line) {
  char hex[80], identity[128], expected[80];
  uint8_t key[SECRET_SIZE], secret[SECRET_SIZE] = {0};

  if (!CHECK_INT(3, sscanf(line, "secret %79s %127s -> %79s", hex, identity,
                           expected)))
    return;
  read_hex(hex, key);
  check_identity(identity);
  CHECK_INT(0, relay__binding_secret(key, identity, secret));
  CHECK_STR(expected, hex_of(secret));
  secrets++;
}

static void run_mac(const char *line) {
  char hex[80], verb[16], session[64], what[64], expected[80];
  char mac[BINDING_MAC_SIZE] = "";
  uint8_t key[SECRET_SIZE];

  if (!CHECK_INT(5, sscanf(line, "mac %79s %15s %63s %63s -> %79s", hex, verb,
                           session, what, expected)))
    return;
  read_hex(hex, key);
  CHECK_INT(0, relay__binding_mac(key, verb, session, what, mac));
  CHECK_STR(expected, mac);
  macs++;
}

TEST(every_vector_holds) {
  bool inside = false;
  char *next;

  for (char *line = document; line != NULL; line = next) {
    next = strchr(line, '\n');
    if (next != NULL)
      *next++ = '\0';
    if (strncmp(line, "```", 3) == 0)
      inside = !inside && strcmp(line, "```keys") == 0;
    else if (inside && strncmp(line, "token ", 6) == 0)
      run_token(line);
    else if (inside && strncmp(line, "secret ", 7) == 0)
      run_secret(line);
    else if (inside && strncmp(line, "mac ", 4) == 0)
      run_mac(line);
    else if (inside)
      CHECK(!"a vector");
  }
  CHECK(tokens > 1 && secrets > 1 && macs > 1);
}

TEST(what_is_too_long_is_none) {
  char text[BINDING_IDENTITY_SIZE + 2], out[BINDING_IDENTITY_SIZE];
  uint8_t key[SECRET_SIZE] = {0};
  char mac[BINDING_MAC_SIZE], line[2048];

  memset(text, 'x', sizeof(text) - 1);
  text[sizeof(text) - 1] = '\0';
  memset(line, 'x', sizeof(line) - 1);
  line[sizeof(line) - 1] = '\0';
  CHECK_INT(UV_EINVAL, relay__binding_accept(out, sizeof(out), text));
  CHECK_INT(UV_EINVAL, relay__binding_wait(out, sizeof(out), text, "1"));
  CHECK_INT(UV_EINVAL, relay__binding_mac(key, "ACCEPT", line, "1", mac));
}

int main(int argc, char **argv) {
  FILE *file = fopen(argc > 1 ? argv[1] : PROTOCOL_PATH, "rb");

  if (file == NULL || fread(document, 1, sizeof(document) - 1, file) == 0)
    perror("protocol.md");
  if (file != NULL)
    fclose(file);
  RUN(every_vector_holds);
  RUN(what_is_too_long_is_none);
  return check_report();
}
