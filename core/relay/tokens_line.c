/* SPDX-License-Identifier: MIT */
/*
 * A line of the tokens file, both ways. See tokens.h for what it looks like.
 * What is read was seen to be printable first, so that it may be quoted.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "relay/tokens_text.h"
#include "wire/log.h"
#include "wire/nearest.h"
#include "wire/utc.h"

/* A word that is longer may be a secret, and is not shown. */
#define SHOWN_MAX 20

#define BLANKS " \t"
#define NUMBER_MAX 1000000

/* ---- what is wrong ---------------------------------------------------- */

int relay__tokens_complain(const struct tokens_reading *reading,
                           const char *format, ...) {
  char reason[256], line[16] = "";
  va_list arguments;

  va_start(arguments, format);
  vsnprintf(reason, sizeof(reason), format, arguments);
  va_end(arguments);
  if (reading->line != 0)
    snprintf(line, sizeof(line), ":%u", reading->line);
  if (reading->path != NULL)
    snprintf(reading->error, reading->size, "%s%s: %s", reading->path, line,
             reason);
  else
    snprintf(reading->error, reading->size, "%s", reason);
  return UV_EFTYPE;
}

int relay__tokens_fail(const struct tokens_reading *reading, int error) {
  relay__tokens_complain(reading, "%s", relay_strerror(error));
  return error;
}

/* ---- values ----------------------------------------------------------- */

/* As many as there are, up to `max`. */
static bool read_number(const char **text, unsigned max, unsigned *value) {
  const char *start = *text;

  for (*value = 0; **text >= '0' && **text <= '9'; (*text)++) {
    *value = *value * 10 + (unsigned)(**text - '0');
    if (*value > max)
      return false;
  }
  return *text != start;
}

static bool read_range(const char **text, struct token_ports *range) {
  unsigned lo, hi;

  if (!read_number(text, 65535, &lo) || lo == 0)
    return false;
  hi = lo;
  if (**text == '-') {
    (*text)++;
    if (!read_number(text, 65535, &hi) || hi < lo)
      return false;
  }
  *range = (struct token_ports){(uint16_t)lo, (uint16_t)hi};
  return true;
}

int relay__tokens_read_ports(const char *text, struct token_ports **ports,
                             size_t *count) {
  size_t ranges = 1;

  for (const char *at = text; *at != '\0'; at++)
    ranges += *at == ',';
  *count = 0;
  *ports = calloc(ranges, sizeof(**ports));
  if (*ports == NULL)
    return UV_ENOMEM;
  while (read_range(&text, *ports + *count)) {
    ++*count;
    if (*text == '\0')
      return 1;
    if (*text++ != ',')
      break;
  }
  free(*ports);
  *ports = NULL;
  *count = 0;
  return 0;
}

static int hex_value(char digit) {
  return digit >= '0' && digit <= '9'   ? digit - '0'
         : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
         : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                        : -1;
}

static bool read_key(const char *text, uint8_t key[SECRET_SIZE]) {
  if (strlen(text) != (size_t)2 * SECRET_SIZE)
    return false;
  for (size_t i = 0; i < SECRET_SIZE; i++) {
    int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

    if (high < 0 || low < 0)
      return false;
    key[i] = (uint8_t)(high << 4 | low);
  }
  return true;
}

static bool read_count(const char *text, unsigned *count) {
  return read_number(&text, NUMBER_MAX, count) && *text == '\0' && *count != 0;
}

static bool read_flag(const char *text, bool *flag) {
  *flag = strcmp(text, "yes") == 0;
  return *flag || strcmp(text, "no") == 0;
}

/* ---- reading ---------------------------------------------------------- */

#define WORD_MAP(X)                                                            \
  X(KEY, key)                                                                  \
  X(PORTS, ports)                                                              \
  X(LEASES, leases)                                                            \
  X(VISITORS, visitors)                                                        \
  X(EXPIRES, expires)                                                          \
  X(PLAIN, plain)                                                              \
  X(REVOKED, revoked)                                                          \
  X(NOTE, note)

enum word {
#define WORD_ENUM(upper, lower) WORD_##upper,
  WORD_MAP(WORD_ENUM)
#undef WORD_ENUM
      WORD_COUNT
};

static const char *const words[WORD_COUNT + 1] = {
#define WORD_NAME(upper, lower) #lower,
    WORD_MAP(WORD_NAME)
#undef WORD_NAME
};

static int set_ports(const struct tokens_reading *reading, struct token *token,
                     const char *value) {
  struct token_ports *ports;
  int status = relay__tokens_read_ports(value, &ports, &token->ports_count);

  if (status == UV_ENOMEM)
    return relay__tokens_fail(reading, status);
  if (status == 0)
    return relay__tokens_complain(
        reading, "ports: '%.64s' is not a list like 8081,9000-9100", value);
  token->ports = ports;
  token->ports_text = value;
  return 0;
}

static int set(const struct tokens_reading *reading, struct token *token,
               enum word word, const char *value) {
  switch (word) {
  case WORD_KEY:
    if (read_key(value, token->key)) /* never quoted: it may be nearly right */
      return 0;
    return relay__tokens_complain(reading, "key: not %d hexadecimal digits",
                                  2 * SECRET_SIZE);
  case WORD_PORTS:
    return set_ports(reading, token, value);
  case WORD_LEASES:
  case WORD_VISITORS:
    if (read_count(value,
                   word == WORD_LEASES ? &token->leases : &token->visitors))
      return 0;
    return relay__tokens_complain(reading,
                                  "%s: '%.64s' is not a number "
                                  "(1-%d)",
                                  words[word], value, NUMBER_MAX);
  case WORD_EXPIRES:
    if (relay__utc_read(value, &token->expires)) {
      token->expires += token->expires == 0; /* that would be never */
      return 0;
    }
    return relay__tokens_complain(
        reading, "expires: '%.64s' is not a time like 2026-12-31T00:00:00Z",
        value);
  case WORD_PLAIN:
  case WORD_REVOKED:
    if (read_flag(value, word == WORD_PLAIN ? &token->plain : &token->revoked))
      return 0;
    return relay__tokens_complain(reading, "%s: '%.64s' is not yes or no",
                                  words[word], value);
  default:
    token->note = value;
    return 0;
  }
}

/* Splits "name=value" in place, and finds the word that has this name. Its
   value, or NULL and a complaint. */
static char *find_word(const struct tokens_reading *reading, char *text,
                       enum word *word) {
  char *equals = strchr(text, '=');
  const char *near;

  if (equals == NULL) {
    if (strlen(text) > SHOWN_MAX) /* a key, maybe */
      text = "a long word";
    relay__tokens_complain(reading, "'%s' is not word=value", text);
    return NULL;
  }
  *equals = '\0';
  for (unsigned i = 0; i < WORD_COUNT; i++)
    if (strcmp(text, words[i]) == 0) {
      *word = (enum word)i;
      return equals + 1;
    }
  near = relay__nearest(text, words);
  if (near != NULL)
    relay__tokens_complain(reading, "unknown word '%.64s' (did you mean '%s'?)",
                           text, near);
  else
    relay__tokens_complain(reading, "unknown word '%.64s'", text);
  return NULL;
}

static int read_words(const struct tokens_reading *reading, char *text,
                      struct token *token) {
  unsigned seen = 0;

  while (*(text += strspn(text, BLANKS)) != '\0') {
    bool is_note = strncmp(text, "note=", 5) == 0;
    size_t length = is_note ? strlen(text) : strcspn(text, BLANKS);
    char *next = text + length + (text[length] != '\0');
    enum word word = WORD_KEY;
    char *value;
    int err;

    text[length] = '\0';
    value = find_word(reading, text, &word);
    if (value == NULL)
      return UV_EFTYPE;
    if ((seen & 1u << word) != 0)
      return relay__tokens_complain(reading, "%s: twice", words[word]);
    seen |= 1u << word;
    err = set(reading, token, word, value);
    if (err != 0)
      return err;
    text = next;
  }
  if ((seen & 1u << WORD_KEY) == 0)
    return relay__tokens_complain(reading, "'%s' has no key", token->id);
  return 1;
}

static int check_text(const struct tokens_reading *reading, const char *line,
                      size_t length) {
  if (length > TOKENS_LINE_MAX)
    return relay__tokens_complain(reading, "longer than %d bytes",
                                  TOKENS_LINE_MAX);
  for (size_t at = 0, step; at < length; at += step) {
    step = line[at] == '\t' ? 1 : relay__log_shown(line + at);
    if (step == 0)
      return relay__tokens_complain(reading, "byte %zu is not text", at + 1);
  }
  return 0;
}

int relay__tokens_check_id(const struct tokens_reading *reading,
                           const char *id) {
  if (relay__token_id_is_valid(id))
    return 0;
  return relay__tokens_complain(
      reading, "'%.80s' is not an id (1 to %d of A-Z, a-z, 0-9, _, -)", id,
      TOKEN_ID_MAX);
}

int relay__tokens_read_line(const struct tokens_reading *reading, char *line,
                            size_t length, struct token *token) {
  size_t end;
  int err;

  if (length > 0 && line[length - 1] == '\r')
    length--;
  while (length > 0 && strchr(BLANKS, line[length - 1]) != NULL)
    length--;
  line[length] = '\0';
  err = check_text(reading, line, length);
  line += strspn(line, BLANKS);
  if (err != 0 || *line == '\0' || *line == '#')
    return err;
  memset(token, 0, sizeof(*token));
  token->id = line;
  token->line = reading->line;
  end = strcspn(line, BLANKS);
  if (line[end] != '\0')
    line[end++] = '\0';
  err = relay__tokens_check_id(reading, token->id);
  return err != 0 ? err : read_words(reading, line + end, token);
}

/* ---- writing ---------------------------------------------------------- */

struct writing {
  char *text;
  size_t length;
};

__attribute__((format(__printf__, 2, 3))) static void
put(struct writing *writing, const char *format, ...) {
  size_t room = TOKENS_LINE_MAX + 2 - writing->length;
  va_list arguments;
  int count;

  va_start(arguments, format);
  count = vsnprintf(writing->text + writing->length, room, format, arguments);
  va_end(arguments);
  writing->length += count < 0               ? room - 1
                     : (size_t)count >= room ? room - 1
                                             : (size_t)count;
}

size_t relay__tokens_write_line(const struct token *token,
                                char line[TOKENS_LINE_MAX + 2]) {
  struct writing writing = {line, 0};
  char time[UTC_TEXT_SIZE];

  put(&writing, "%s key=", token->id);
  for (size_t i = 0; i < SECRET_SIZE; i++)
    put(&writing, "%02x", token->key[i]);
  if (token->ports_text != NULL)
    put(&writing, " ports=%s", token->ports_text);
  if (token->leases != 0)
    put(&writing, " leases=%u", token->leases);
  if (token->visitors != 0)
    put(&writing, " visitors=%u", token->visitors);
  if (token->expires != 0) {
    relay__utc_write(token->expires, time);
    put(&writing, " expires=%s", time);
  }
  if (token->plain)
    put(&writing, " plain=yes");
  if (token->revoked)
    put(&writing, " revoked=yes");
  if (token->note != NULL)
    put(&writing, " note=%s", token->note);
  put(&writing, "\n");
  return line[writing.length - 1] == '\n' ? writing.length : 0;
}
