/* SPDX-License-Identifier: MIT */
/*
 * The specification against the codec: runs the test vectors of
 * docs/protocol.md, given as the argument, and looks that the text leaves out
 * no verb and no code. Fails if there are no vectors.
 */
#include "check.h"
#include "wire/wire.h"

#include <ctype.h>
#include <relay/base.h>
#include <stdlib.h>

#ifndef PROTOCOL_PATH
#define PROTOCOL_PATH "docs/protocol.md"
#endif

static const char *path = PROTOCOL_PATH;
static char document[256 * 1024];
static unsigned line_number;

static void complain(const char *what, const char *line) {
  check_that_(false, path, (int)line_number, what);
  fprintf(stderr, "  %s\n", line);
}

/* Reads a quoted string; returns what follows it, or NULL. */
static const char *unquote(const char *text, char *bytes, size_t *count) {
  static const char names[] = "nrt\"\\", values[] = "\n\r\t\"\\";

  *count = 0;
  if (*text++ != '"')
    return NULL;
  for (; *text != '"'; text++) {
    const char *name;

    if (*text == '\0' || *count == 2 * WIRE_LINE_MAX)
      return NULL;
    if (*text != '\\') {
      bytes[(*count)++] = *text;
      continue;
    }
    text++;
    name = *text != '\0' ? strchr(names, *text) : NULL;
    if (name != NULL) {
      bytes[(*count)++] = values[name - names];
    } else if (*text == 'x' && isxdigit((unsigned char)text[1]) &&
               isxdigit((unsigned char)text[2])) {
      char hex[3] = {text[1], text[2], '\0'};

      bytes[(*count)++] = (char)strtoul(hex, NULL, 16);
      text += 2;
    } else {
      return NULL;
    }
  }
  return text + 1;
}

/* A message as the right side of a vector says it. */
static const char *describe(const struct wire_message *message) {
  static char text[WIRE_LINE_MAX + 16];
  struct wire_message again;
  struct wire_line line;
  const char *verb;

  relay__wire_begin(&line, message->verb);
  for (unsigned i = 0; i < message->word_count; i++)
    relay__wire_add(&line, message->words[i].key, message->words[i].value);
  if (relay__wire_end(&line) != 0 ||
      relay__wire_parse(&again, line.text, line.length) != (int)line.length ||
      again.verb != message->verb || again.word_count != message->word_count)
    return "a message that does not survive being written";
  for (unsigned i = 0; i < again.word_count; i++)
    if (strcmp(again.words[i].value, message->words[i].value) != 0)
      return "a message whose values change when written";
  verb = line.text;
  if (strncmp(verb, "RELAY/1 ", 8) == 0)
    verb += 8;
  snprintf(text, sizeof text, "verb=%.*s",
           (int)(line.text + line.length - 1 - verb), verb);
  return text;
}

static void run_ok(const char *line, const char *expected, const char *bytes,
                   size_t count) {
  struct wire_message message;
  const char *feed = memchr(bytes, '\n', count);
  int consumed = relay__wire_parse(&message, bytes, count);

  if (strncmp(expected, " -> ", 4) != 0)
    complain("not a vector", line);
  else if (feed == NULL || consumed != (int)(feed - bytes) + 1)
    complain("not read as a line", line);
  else if (!check_str_(expected + 4, describe(&message), path, (int)line_number,
                       "the message"))
    fprintf(stderr, "  %s\n", line);
}

static void run_refused(const char *line, const char *rest, const char *bytes,
                        size_t count, int expected) {
  struct wire_message message;

  if (*rest != '\0')
    complain("not a vector", line);
  else if (!check_int_(expected, relay__wire_parse(&message, bytes, count),
                       path, (int)line_number, "what parsing returns"))
    fprintf(stderr, "  %s\n", line);
}

static void run_vector(const char *line) {
  static const struct {
    const char *start;
    int result;
  } kinds[] = {{"ok ", 1},
               {"more ", 0},
               {"error PROTO ", RELAY_EPROTO},
               {"error VERSION ", RELAY_EVERSION}};
  char bytes[2 * WIRE_LINE_MAX];

  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    size_t length = strlen(kinds[i].start);
    const char *rest;
    size_t count;

    if (strncmp(line, kinds[i].start, length) != 0)
      continue;
    rest = unquote(line + length, bytes, &count);
    if (rest == NULL)
      break;
    if (kinds[i].result == 1)
      run_ok(line, rest, bytes, count);
    else
      run_refused(line, rest, bytes, count, kinds[i].result);
    return;
  }
  complain("not a vector", line);
}

TEST(every_vector_holds) {
  static char copy[sizeof document];
  bool inside = false;
  unsigned count = 0;
  char *next;

  memcpy(copy, document, sizeof copy);
  line_number = 0;
  for (char *line = copy; line != NULL; line = next) {
    next = strchr(line, '\n');
    if (next != NULL)
      *next++ = '\0';
    line_number++;
    if (strncmp(line, "```", 3) == 0) {
      inside = !inside && strcmp(line, "```vectors") == 0;
    } else if (inside && *line != '\0') {
      run_vector(line);
      count++;
    }
  }
  CHECK(count > 0);
  CHECK(!inside);
}

TEST(every_verb_is_specified) {
  for (unsigned i = 0; i < WIRE_VERB_COUNT; i++) {
    char vector[64];

    snprintf(vector, sizeof vector, "\nok \"%s",
             relay__wire_verb((enum wire_verb)i));
    CHECK(strstr(document, vector) != NULL);
  }
}

TEST(every_code_is_specified) {
#define SEEN(number, name, code, text)                                         \
  CHECK(strstr(document, "\n| `" code "` | " text " |\n") != NULL);
  RELAY_ERROR_MAP(SEEN)
#undef SEEN
}

int main(int argc, char **argv) {
  FILE *file;
  size_t count = 0;

  if (argc > 1)
    path = argv[1];
  file = fopen(path, "rb");
  if (file != NULL) {
    count = fread(document, 1, sizeof document - 1, file);
    fclose(file);
  } else {
    perror(path);
  }
  document[count] = '\0';
  RUN(every_vector_holds);
  RUN(every_verb_is_specified);
  RUN(every_code_is_specified);
  return check_report();
}
