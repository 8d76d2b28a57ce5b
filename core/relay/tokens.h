/* SPDX-License-Identifier: MIT */
/*
 * The tokens file: who may ask for an address, and what each may have. Text,
 * one token a line:
 *
 *   id key=HEX [ports=8081,9000-9100] [leases=N] [visitors=N]
 *      [expires=2026-12-31T00:00:00Z] [plain=yes] [revoked=yes] [note=…]
 *
 * Words are parted by blanks; a note takes the rest of its line. A line that is
 * blank or begins with '#' is passed over. The file holds keys, so nobody but
 * its owner may have access to it: another mode is an error, and so is whatever
 * is not as above.
 *
 * A file that was read does not change; a newer one takes its place.
 */
#ifndef RELAY_TOKENS_H
#define RELAY_TOKENS_H

#include "net/secret.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a tokens file may be at most. */
#define TOKENS_FILE_MAX (16 * 1024 * 1024)
#define TOKENS_LINE_MAX 4096

struct token_ports {
  uint16_t lo;
  uint16_t hi;
};

struct token {
  const char *id;
  uint8_t key[SECRET_SIZE];
  const struct token_ports *ports; /* the only ones it may have */
  size_t ports_count;              /* 0: those of the relay */
  const char *ports_text;          /* NULL: none given */
  unsigned leases;                 /* at a time; 0: as for any owner */
  unsigned visitors;               /* of each of its leases; 0: as for any */
  int64_t expires;                 /* seconds since 1970; 0: never */
  bool plain;                      /* data=plain is allowed */
  bool revoked;
  const char *note; /* NULL: none */
  unsigned line;
};

struct tokens;

/* Reads a file; `path` NULL: one without tokens. 0; or a negative libuv code,
   with one line in `error` that names the file, its line where there is one,
   and the reason. */
int relay__tokens_read(struct tokens **out, const char *path, char *error,
                       size_t size);
/* The same of text in memory; `path` is what errors call it. */
int relay__tokens_parse(struct tokens **out, const char *path, const char *text,
                        size_t length, char *error, size_t size);
/* Wipes the keys. NULL is allowed. */
void relay__tokens_free(struct tokens *tokens);

/* NULL: unknown. A token that is revoked or has expired is found, too; whoever
   asks looks at relay__token_refusal. NULL tokens and a NULL id find none. */
const struct token *relay__tokens_find(const struct tokens *tokens,
                                       const char *id);
size_t relay__tokens_count(const struct tokens *tokens);
/* In the order of the file; index < count. */
const struct token *relay__tokens_at(const struct tokens *tokens, size_t index);

/* The first time after `now` at which one of them expires; 0: none does. */
int64_t relay__tokens_next_expiry(const struct tokens *tokens, int64_t now);
/* Why it lets nobody in at the time `now` (seconds since 1970), for the log:
   "token is revoked"; NULL when it is good. No token is unknown. */
const char *relay__token_refusal(const struct token *token, int64_t now);
/* Whether one of its ranges holds this port. */
bool relay__token_allows_port(const struct token *token, unsigned port);

#endif
