/* SPDX-License-Identifier: MIT */
/*
 * The wire protocol's lines: bytes in, messages out, and back. Pure: no libuv,
 * no allocation, no clock. Shared by both halves, and fuzzed.
 *
 * A line is a verb and then key=value words, single spaces between, ended by
 * LF (a CR before it is ignored), at most WIRE_LINE_MAX bytes with its LF.
 * docs/protocol.md is the specification; its test vectors run against this.
 */
#ifndef RELAY_WIRE_H
#define RELAY_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_LINE_MAX 1024
#define WIRE_WORDS_MAX 32

/* "RELAY/1 LISTEN" is one verb of two words. */
#define WIRE_VERB_MAP(X)                                                       \
  X(LISTEN, "RELAY/1 LISTEN")                                                  \
  X(ACCEPT, "RELAY/1 ACCEPT")                                                  \
  X(WAIT, "RELAY/1 WAIT")                                                      \
  X(OK, "OK")                                                                  \
  X(ERR, "ERR")                                                                \
  X(VISITOR, "VISITOR")                                                        \
  X(REJECT, "REJECT")                                                          \
  X(GONE, "GONE")                                                              \
  X(PING, "PING")                                                              \
  X(PONG, "PONG")                                                              \
  X(BYE, "BYE")

enum wire_verb {
#define WIRE_VERB_ENUM(name, text) WIRE_##name,
  WIRE_VERB_MAP(WIRE_VERB_ENUM)
#undef WIRE_VERB_ENUM
      WIRE_VERB_COUNT
};

struct wire_word {
  const char *key;
  const char *value; /* percent-decoded, NUL-terminated, holds no NUL */
};

/* A parsed line. The words point into `text`: the message is valid as long as
   it stays where it is, and a copy of it is not. */
struct wire_message {
  enum wire_verb verb;
  unsigned word_count;
  struct wire_word words[WIRE_WORDS_MAX];
  char text[WIRE_LINE_MAX + 1];
};

/*
 * Parses the first line of `bytes`. > 0: that many bytes were consumed, LF
 * included, and `message` is filled. 0: no LF yet, and it may still become a
 * line: more is needed. RELAY_EPROTO: not a line of this protocol, and no byte
 * to come can make it one (so binary data is told apart without waiting for
 * its LF). RELAY_EVERSION: the same, but it starts with RELAY/ and another
 * version. After an error `message` holds nothing of use. Never reads past
 * `count`; any bytes are safe.
 */
int relay__wire_parse(struct wire_message *message, const char *bytes,
                      size_t count);

/* What was wrong with a line that did not parse, or never came to its end, in
   a few words for a log: "a TLS handshake", "an HTTP request", "an unknown
   verb", … For a line that parses: "a line out of place". Static. */
const char *relay__wire_diagnose(const char *bytes, size_t count);

/* The value of a key, or NULL. The first counts where a key comes twice. */
const char *relay__wire_get(const struct wire_message *message,
                            const char *key);

/* A decimal value between 0 and max, without sign or leading zeros. 1: it was
   there; 0: it was not; RELAY_EPROTO: it is no such number. `value` changes
   with 1 only. */
int relay__wire_get_number(const struct wire_message *message, const char *key,
                           uint64_t max, uint64_t *value);

/* The verb as it stands on the wire. Static. */
const char *relay__wire_verb(enum wire_verb verb);

/* A line being written. One that does not fit WIRE_LINE_MAX or has too many
   words is marked so and relay__wire_end says so: what it lets pass, parses. */
struct wire_line {
  size_t length;
  unsigned word_count;
  bool overflow;
  char text[WIRE_LINE_MAX];
};

void relay__wire_begin(struct wire_line *line, enum wire_verb verb);
/* Adds key=value; the value is percent-encoded as needed. The key is the
   caller's own, [a-z][a-z0-9_-]*. A NULL value adds nothing. */
void relay__wire_add(struct wire_line *line, const char *key,
                     const char *value);
void relay__wire_add_number(struct wire_line *line, const char *key,
                            uint64_t value);
/* The same for free text, added last: what does not fit is cut off between
   characters instead of spoiling the line. */
void relay__wire_add_text(struct wire_line *line, const char *key,
                          const char *text);
/* Ends the line with LF. 0, or UV_EMSGSIZE-like RELAY_EPROTO if it did not
   fit. */
int relay__wire_end(struct wire_line *line);

#endif
