/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a tokens file. What is taken must be the same after it was
 * written again; what is not must be complained of in one clean line. A broken
 * promise aborts.
 */
#include "relay/tokens_text.h"
#include "wire/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROMISE(cond)                                                          \
  do {                                                                         \
    if (!(cond)) {                                                             \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);       \
      abort();                                                                 \
    }                                                                          \
  } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static bool is_same_text(const char *a, const char *b) {
  return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static void check_same(const struct token *a, const struct token *b) {
  PROMISE(strcmp(a->id, b->id) == 0);
  PROMISE(relay__secret_equals(a->key, b->key, SECRET_SIZE));
  PROMISE(a->ports_count == b->ports_count);
  for (size_t i = 0; i < a->ports_count; i++)
    PROMISE(a->ports[i].lo == b->ports[i].lo &&
            a->ports[i].hi == b->ports[i].hi &&
            a->ports[i].lo <= a->ports[i].hi);
  PROMISE(a->leases == b->leases && a->visitors == b->visitors);
  PROMISE(a->expires == b->expires);
  PROMISE(a->plain == b->plain && a->revoked == b->revoked);
  PROMISE(is_same_text(a->note, b->note));
}

static void check_token(const struct tokens *tokens,
                        const struct token *token) {
  static char line[TOKENS_LINE_MAX + 2];
  struct tokens *again;
  char error[256];
  size_t length = relay__tokens_write_line(token, line);

  PROMISE(relay__token_id_is_valid(token->id));
  PROMISE(relay__tokens_find(tokens, token->id) == token);
  if (length == 0)
    return; /* keys, flags and blanks may be shorter than they are written */
  PROMISE(relay__tokens_parse(&again, "f", line, length, error, sizeof error) ==
          0);
  PROMISE(relay__tokens_count(again) == 1);
  check_same(token, relay__tokens_at(again, 0));
  relay__tokens_free(again);
}

static void check_clean(const char *text) {
  PROMISE(*text != '\0');
  while (*text != '\0') {
    size_t step = *text == '\t' ? 1 : relay__log_shown(text);

    /* A quoted word that was cut may end within a character. */
    if (step == 0 && (unsigned char)*text >= 0x80)
      step = 1;
    PROMISE(step != 0);
    text += step;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
  struct tokens *tokens;
  char error[256] = "";

  if (relay__tokens_parse(&tokens, "f", (const char *)bytes, count, error,
                          sizeof error) != 0) {
    check_clean(error);
    return 0;
  }
  for (size_t i = 0; i < relay__tokens_count(tokens); i++)
    check_token(tokens, relay__tokens_at(tokens, i));
  relay__tokens_free(tokens);
  return 0;
}
