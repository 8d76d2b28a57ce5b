/* SPDX-License-Identifier: MIT */
/*
 * Any bytes to the codec, and on to where bytes of peers end up: diagnosis,
 * log lines, addresses. What parses must be the same after it was written
 * again; what is logged must be one clean line. A broken promise aborts.
 */
#include "wire/address.h"
#include "wire/log.h"
#include "wire/wire.h"

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

static void check_same(const struct wire_message *a,
                       const struct wire_message *b) {
  PROMISE(a->verb == b->verb && a->word_count == b->word_count);
  for (unsigned i = 0; i < a->word_count; i++) {
    PROMISE(strcmp(a->words[i].key, b->words[i].key) == 0);
    PROMISE(strcmp(a->words[i].value, b->words[i].value) == 0);
  }
}

static void check_rewritten(const struct wire_message *message) {
  static struct wire_message again;
  struct wire_line line;

  relay__wire_begin(&line, message->verb);
  for (unsigned i = 0; i < message->word_count; i++)
    relay__wire_add(&line, message->words[i].key, message->words[i].value);
  PROMISE(relay__wire_end(&line) == 0);
  PROMISE(relay__wire_parse(&again, line.text, line.length) ==
          (int)line.length);
  check_same(message, &again);
}

/* Free text of any length must leave a line that parses. */
static void check_free_text(const char *text) {
  static struct wire_message message;
  struct wire_line line;
  const char *value;

  relay__wire_begin(&line, WIRE_BYE);
  relay__wire_add_text(&line, "reason", text);
  PROMISE(relay__wire_end(&line) == 0);
  PROMISE(relay__wire_parse(&message, line.text, line.length) ==
          (int)line.length);
  value = relay__wire_get(&message, "reason");
  PROMISE(value != NULL && strncmp(value, text, strlen(value)) == 0);
}

static void check_numbers(const struct wire_message *message) {
  uint64_t value = 1;

  for (unsigned i = 0; i < message->word_count; i++) {
    const char *key = message->words[i].key;
    char text[24];

    if (relay__wire_get_number(message, key, UINT64_MAX, &value) != 1)
      continue;
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    PROMISE(strcmp(text, relay__wire_get(message, key)) == 0);
    PROMISE(relay__wire_get_number(message, key, value, &value) == 1);
    PROMISE(value == 0 ||
            relay__wire_get_number(message, key, value - 1, &value) < 0);
  }
}

static void check_clean(const char *line, size_t length) {
  PROMISE(strlen(line) == length);
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)line[i];

    PROMISE(c >= ' ' && c != 0x7f);
    PROMISE(c != 0xc2 || (unsigned char)line[i + 1] >= 0xa0);
  }
}

static void check_log(const char *text, size_t count) {
  relay_log_field fields[] = {
      {"bytes", text, 0}, LOG_NUMBER("count", count), {text, text, 0}};
  relay_log_record record = {sizeof record, RELAY_LOG_WARN, text, fields, 3};
  static const size_t sizes[] = {65536, 0, 1, 2, 3, 30, 60, 100, 200, 1000};
  static char line[65536];
  size_t pick[] = {0, 1 + count % (sizeof sizes / sizeof *sizes - 1)};

  for (unsigned i = 0; i < 4; i++) {
    size_t size = sizes[pick[i / 2]];
    relay_log_format_kind kind = i % 2 ? RELAY_LOG_JSON : RELAY_LOG_TEXT;
    size_t length = relay_log_format(&record, kind, line, size);

    PROMISE(size == 0 ? length == 0 : length < size);
    if (size == 0)
      continue;
    check_clean(line, length);
    if (kind == RELAY_LOG_JSON && length > 0)
      PROMISE(line[0] == '{' && line[length - 1] == '}');
  }
}

static void check_address(const char *text) {
  struct sockaddr_storage address, again;
  char host[ADDRESS_HOST_MAX], printed[ADDRESS_TEXT_MAX];
  unsigned port;

  if (relay__address_split(text, host, sizeof host, &port) != 0 ||
      relay__address_parse_host(host, port, &address) != 0)
    return;
  relay__address_text((struct sockaddr *)&address, printed, sizeof printed);
  PROMISE(relay__address_split(printed, host, sizeof host, &port) == 0);
  PROMISE(relay__address_parse_host(host, port, &again) == 0);
  PROMISE(memcmp(&address, &again, sizeof address) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
  static struct wire_message message;
  const char *line = (const char *)bytes;
  int consumed = relay__wire_parse(&message, line, count);
  char *text = malloc(count + 1);

  if (text == NULL)
    return 0;
  if (count > 0)
    memcpy(text, bytes, count);
  text[count] = '\0';
  PROMISE(relay__wire_diagnose(line, count) != NULL);
  if (consumed > 0) {
    static struct wire_message other;

    PROMISE((size_t)consumed <= count && line[consumed - 1] == '\n');
    PROMISE(relay__wire_parse(&other, line, (size_t)consumed - 1) == 0);
    check_rewritten(&message);
    check_numbers(&message);
    for (unsigned i = 0; i < message.word_count; i++)
      check_address(message.words[i].value);
  } else if (consumed == 0) {
    PROMISE(count < WIRE_LINE_MAX && memchr(text, '\n', count) == NULL);
  }
  check_free_text(text);
  check_log(text, count);
  check_address(text);
  free(text);
  return 0;
}
