/* SPDX-License-Identifier: MIT */
/*
 * The wire protocol's lines. One pass finds the end of the line and refuses
 * bytes no line can hold; a second reads verb and words, decoding in place in
 * the message's own copy. Every refusal is worded where it is found, and
 * relay__wire_diagnose asks the same code, so the two cannot disagree.
 */
#include "wire/wire.h"

#include <relay/base.h>
#include <string.h>

#define LENGTH(literal) (sizeof(literal) - 1)

static const char *const verbs[] = {
#define VERB_TEXT(name, text) text,
    WIRE_VERB_MAP(VERB_TEXT)
#undef VERB_TEXT
};

/* ASCII only, whatever the locale. */
static bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

static bool is_printable(char c) {
  return c >= ' ' && c <= '~';
}

/* What a value may hold as it is. */
static bool is_plain(char c) {
  return is_lower(c) || is_digit(c) || (c >= 'A' && c <= 'Z') ||
         (c != '\0' && strchr("-._~:[]/", c) != NULL);
}

static int hex_digit(char c) {
  if (is_digit(c))
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

static bool starts_with(const char *bytes, size_t count, const char *prefix,
                        size_t length) {
  return count >= length && memcmp(bytes, prefix, length) == 0;
}

/* The verb that `text` starts with; `length` becomes the verb's. */
static enum wire_verb find_verb(const char *text, size_t *length) {
  for (unsigned i = 0; i < WIRE_VERB_COUNT; i++) {
    size_t n = strlen(verbs[i]);

    if (starts_with(text, *length, verbs[i], n) &&
        (n == *length || text[n] == ' ')) {
      *length = n;
      return (enum wire_verb)i;
    }
  }
  return WIRE_VERB_COUNT;
}

/* Whether this is RELAY/ and a version that is not ours. */
static bool is_other_version(const char *bytes, size_t count) {
  static const char mark[] = "RELAY/";
  size_t start = LENGTH(mark);
  size_t end = start;

  if (!starts_with(bytes, count, mark, LENGTH(mark)))
    return false;
  while (end < count && is_printable(bytes[end]) && bytes[end] != ' ')
    end++;
  return end > start && !(end == start + 1 && bytes[start] == '1');
}

/* Finds the end of the first line. > 0: bytes up to and with LF, `length` those
   before CR and LF; 0: no end yet; < 0: no line, `fault` says why. */
static int measure(const char *bytes, size_t count, size_t *length,
                   const char **fault) {
  size_t limit = count < WIRE_LINE_MAX ? count : WIRE_LINE_MAX;
  size_t end = 0;

  while (end < limit && is_printable(bytes[end]))
    end++;
  *length = end;
  if (end < limit && bytes[end] == '\r')
    end++;
  if (end < limit) {
    if (bytes[end] == '\n')
      return (int)end + 1;
    *fault = find_verb(bytes, &end) == WIRE_VERB_COUNT
                 ? "binary data"
                 : "a byte that must be percent-encoded";
    return RELAY_EPROTO;
  }
  *fault = limit == WIRE_LINE_MAX ? "an oversized line" : "an unfinished line";
  return limit == WIRE_LINE_MAX ? RELAY_EPROTO : 0;
}

/* Decodes a value in place. */
static int decode(char *value, const char **fault) {
  char *to = value;

  for (const char *from = value; *from != '\0'; from++) {
    int high, low;

    if (is_plain(*from)) {
      *to++ = *from;
      continue;
    }
    *fault = "a byte that must be percent-encoded";
    if (*from != '%')
      return RELAY_EPROTO;
    *fault = "a malformed percent-encoding";
    high = hex_digit(from[1]);
    low = high < 0 ? -1 : hex_digit(from[2]);
    if (low < 0 || high + low == 0)
      return RELAY_EPROTO;
    *to++ = (char)(unsigned char)(high * 16 + low);
    from += 2;
  }
  *to = '\0';
  return 0;
}

static int read_word(struct wire_word *word, char *text, const char **fault) {
  char *at = text;

  while (is_lower(*at) ||
         (at > text && (is_digit(*at) || *at == '_' || *at == '-')))
    at++;
  *fault = "a malformed word";
  if (at == text || *at != '=')
    return RELAY_EPROTO;
  *at++ = '\0';
  word->key = text;
  word->value = at;
  return decode(at, fault);
}

/* Reads what follows the verb: each word has one space before it, so that two
   spaces, or one at the end, make an empty word, which is none. */
static int read_words(struct wire_message *message, char *at, const char *end,
                      const char **fault) {
  message->word_count = 0;
  while (at != end) {
    char *text = at + 1;

    *fault = "too many words";
    if (message->word_count == WIRE_WORDS_MAX)
      return RELAY_EPROTO;
    at = text + strcspn(text, " ");
    *at = '\0';
    if (read_word(&message->words[message->word_count], text, fault) != 0)
      return RELAY_EPROTO;
    message->word_count++;
  }
  return 0;
}

static int parse(struct wire_message *message, const char *bytes, size_t count,
                 const char **fault) {
  size_t length;
  size_t verb;
  int consumed = measure(bytes, count, &length, fault);

  if (consumed <= 0)
    return consumed;
  *fault = "an empty line";
  if (length == 0)
    return RELAY_EPROTO;
  memcpy(message->text, bytes, length);
  message->text[length] = '\0';
  verb = length;
  message->verb = find_verb(message->text, &verb);
  *fault = "an unknown verb";
  if (message->verb == WIRE_VERB_COUNT)
    return RELAY_EPROTO;
  if (read_words(message, message->text + verb, message->text + length,
                 fault) != 0)
    return RELAY_EPROTO;
  return consumed;
}

int relay__wire_parse(struct wire_message *message, const char *bytes,
                      size_t count) {
  const char *fault;
  int result = parse(message, bytes, count, &fault);

  if (result < 0 && is_other_version(bytes, count))
    return RELAY_EVERSION;
  return result;
}

/* What is often sent to an open port by mistake or to find out what it is. */
static const char *name_foreign(const char *bytes, size_t count) {
  static const struct {
    const char *prefix;
    size_t length;
    const char *name;
  } foreign[] = {
#define FOREIGN(prefix, name) {prefix, LENGTH(prefix), name}
      FOREIGN("\x16\x03", "a TLS handshake"),
      FOREIGN("\x15\x03", "a TLS alert"),
      FOREIGN("SSH-", "an SSH banner"),
      FOREIGN("GET ", "an HTTP request"),
      FOREIGN("HEAD ", "an HTTP request"),
      FOREIGN("POST ", "an HTTP request"),
      FOREIGN("PUT ", "an HTTP request"),
      FOREIGN("PATCH ", "an HTTP request"),
      FOREIGN("DELETE ", "an HTTP request"),
      FOREIGN("OPTIONS ", "an HTTP request"),
      FOREIGN("TRACE ", "an HTTP request"),
      FOREIGN("CONNECT ", "an HTTP request"),
      FOREIGN("PRI * HTTP/", "an HTTP request"),
      FOREIGN("HTTP/", "an HTTP response"),
      FOREIGN("PROXY ", "a PROXY protocol header"),
      FOREIGN("\r\n\r\n\0\r\nQUIT\n", "a PROXY protocol header"),
      FOREIGN("\3\0\0", "an RDP request"),
      FOREIGN("\5\1\0", "a SOCKS request"),
      FOREIGN("\5\2\0", "a SOCKS request"),
#undef FOREIGN
  };

  for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
    if (starts_with(bytes, count, foreign[i].prefix, foreign[i].length))
      return foreign[i].name;
  return NULL;
}

const char *relay__wire_diagnose(const char *bytes, size_t count) {
  struct wire_message message;
  const char *fault = name_foreign(bytes, count);

  if (count == 0)
    return "nothing";
  if (fault != NULL)
    return fault;
  if (parse(&message, bytes, count, &fault) > 0)
    return "a line out of place";
  return is_other_version(bytes, count) ? "another protocol version" : fault;
}

const char *relay__wire_get(const struct wire_message *message,
                            const char *key) {
  for (unsigned i = 0; i < message->word_count; i++)
    if (strcmp(message->words[i].key, key) == 0)
      return message->words[i].value;
  return NULL;
}

int relay__wire_get_number(const struct wire_message *message, const char *key,
                           uint64_t max, uint64_t *value) {
  const char *text = relay__wire_get(message, key);
  uint64_t number = 0;

  if (text == NULL)
    return 0;
  if (*text == '\0' || (*text == '0' && text[1] != '\0'))
    return RELAY_EPROTO;
  for (; *text != '\0'; text++) {
    unsigned digit = (unsigned char)*text - (unsigned)'0';

    if (digit > 9 || digit > max || number > (max - digit) / 10)
      return RELAY_EPROTO;
    number = number * 10 + digit;
  }
  *value = number;
  return 1;
}

const char *relay__wire_verb(enum wire_verb verb) {
  return (unsigned)verb < WIRE_VERB_COUNT ? verbs[verb] : "";
}

/* One byte is kept for LF. */
static bool put(struct wire_line *line, const char *bytes, size_t count) {
  if (line->overflow || count > WIRE_LINE_MAX - 1 - line->length) {
    line->overflow = true;
    return false;
  }
  memcpy(line->text + line->length, bytes, count);
  line->length += count;
  return true;
}

static bool put_encoded(struct wire_line *line, char c) {
  static const char digits[] = "0123456789ABCDEF";
  unsigned byte = (unsigned char)c;
  char code[3] = {'%', digits[byte / 16], digits[byte % 16]};

  return is_plain(c) ? put(line, &c, 1) : put(line, code, sizeof code);
}

static bool put_key(struct wire_line *line, const char *key) {
  if (line->word_count == WIRE_WORDS_MAX)
    line->overflow = true;
  line->word_count++;
  return put(line, " ", 1) && put(line, key, strlen(key)) && put(line, "=", 1);
}

void relay__wire_begin(struct wire_line *line, enum wire_verb verb) {
  const char *text = relay__wire_verb(verb);

  line->length = 0;
  line->word_count = 0;
  line->overflow = *text == '\0';
  put(line, text, strlen(text));
}

void relay__wire_add(struct wire_line *line, const char *key,
                     const char *value) {
  if (value == NULL || !put_key(line, key))
    return;
  while (*value != '\0' && put_encoded(line, *value))
    value++;
}

void relay__wire_add_number(struct wire_line *line, const char *key,
                            uint64_t value) {
  char text[21];
  char *at = text + sizeof text - 1;

  *at = '\0';
  do
    *--at = (char)('0' + value % 10);
  while ((value /= 10) != 0);
  relay__wire_add(line, key, at);
}

void relay__wire_add_text(struct wire_line *line, const char *key,
                          const char *text) {
  struct {
    size_t length;
    unsigned word_count;
  } last = {line->length, line->word_count};

  if (text == NULL || line->overflow)
    return;
  if (put_key(line, key)) {
    last.length = line->length;
    last.word_count = line->word_count;
    while (*text != '\0' && put_encoded(line, *text)) {
      /* Never between the bytes of one UTF-8 character. */
      text++;
      if (((unsigned char)*text & 0xc0) != 0x80)
        last.length = line->length;
    }
  }
  if (line->overflow) {
    line->length = last.length;
    line->word_count = last.word_count;
    line->overflow = false;
  }
}

int relay__wire_end(struct wire_line *line) {
  if (line->overflow)
    return RELAY_EPROTO;
  line->text[line->length++] = '\n';
  return 0;
}
