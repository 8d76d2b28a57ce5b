/* SPDX-License-Identifier: MIT */
/* The codec: what is a line, what is none, and that writing and reading are
   each other's reverse. Vectors of the specification are test_vectors.c. */
#include "check.h"
#include "wire/wire.h"

#include <relay/base.h>
#include <stdlib.h>

static struct wire_message message;

/* Parses from a block of exactly that size, so that a sanitizer sees a read
   past its end. */
static int parse_bytes(const char *bytes, size_t count) {
  char *copy = malloc(count + 1);
  int result;

  if (copy == NULL)
    return -1;
  memcpy(copy + 1, bytes, count);
  result = relay__wire_parse(&message, copy + 1, count);
  free(copy);
  return result;
}

static int parse(const char *line) {
  return parse_bytes(line, strlen(line));
}

static const char *diagnose(const char *line) {
  return relay__wire_diagnose(line, strlen(line));
}

TEST(reads_verb_and_words) {
  CHECK_INT(33, parse("RELAY/1 LISTEN port=8081 name=db\nrest"));
  CHECK_INT(WIRE_LISTEN, message.verb);
  CHECK_INT(2, message.word_count);
  CHECK_STR("port", message.words[0].key);
  CHECK_STR("8081", message.words[0].value);
  CHECK_STR("db", relay__wire_get(&message, "name"));
  CHECK(relay__wire_get(&message, "pool") == NULL);
  CHECK_INT(15, parse("RELAY/1 LISTEN\n"));
  CHECK_INT(0, message.word_count);
}

TEST(knows_every_verb) {
  for (unsigned i = 0; i < WIRE_VERB_COUNT; i++) {
    char line[64];
    int length = snprintf(line, sizeof line, "%s\n",
                          relay__wire_verb((enum wire_verb)i));

    CHECK_INT(length, parse(line));
    CHECK_INT(i, message.verb);
  }
  CHECK_STR("", relay__wire_verb(WIRE_VERB_COUNT));
}

TEST(waits_for_the_line_feed) {
  const char *line = "RELAY/1 ACCEPT session=S id=%41\r\n";

  for (size_t count = 0; count < strlen(line); count++)
    CHECK_INT(0, parse_bytes(line, count));
  CHECK_INT(strlen(line), parse(line));
  CHECK_STR("A", relay__wire_get(&message, "id"));
}

TEST(ignores_one_carriage_return) {
  CHECK_INT(6, parse("PING\r\n"));
  CHECK_INT(RELAY_EPROTO, parse("PING\r\r\n"));
  CHECK_INT(RELAY_EPROTO, parse("PING\rn=1\n"));
  CHECK_INT(RELAY_EPROTO, parse("\r\n"));
}

TEST(decodes_values) {
  CHECK(parse("BYE reason=two%20words%0a%C3%a9 empty=\n") > 0);
  CHECK_STR("two words\n\xc3\xa9", relay__wire_get(&message, "reason"));
  CHECK_STR("", relay__wire_get(&message, "empty"));
  CHECK(parse("OK a=-._~:[]/ a=second\n") > 0);
  CHECK_STR("-._~:[]/", relay__wire_get(&message, "a"));
}

TEST(refuses_what_is_no_line) {
  static const char *const lines[] = {
      "\n",           " PING\n",        "PING \n",         "PING  n=1\n",
      "PING n=1 \n",  "PING n\n",       "PING =1\n",       "PING N=1\n",
      "PING 1n=1\n",  "PING -n=1\n",    "PING n=a=b\n",    "PING n=a,b\n",
      "PING n=%\n",   "PING n=%4\n",    "PING n=%4 1\n",   "PING n=%4g\n",
      "PING n=%00\n", "PING n=\"a\"\n", "PING\tn=1\n",     "PING n=\x80\n",
      "ping n=1\n",   "PINGS\n",        "LISTEN\n",        "RELAY/1\n",
      "RELAY/1 \n",   "RELAY/1 PING\n", "RELAY/1  WAIT\n", "RELAY/\n",
      "PING n=+1%\n", "OK a.b=1\n",
  };

  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
    if (!CHECK_INT(RELAY_EPROTO, parse(lines[i])))
      fprintf(stderr, "  line: %s", lines[i]);
  CHECK_INT(RELAY_EPROTO, parse_bytes("PING n=\0\n", 9));
}

TEST(refuses_binary_before_its_line_feed) {
  CHECK_INT(RELAY_EPROTO, parse("\x16\x03\x01"));
  CHECK_INT(RELAY_EPROTO, parse_bytes("\0", 1));
  CHECK_INT(RELAY_EPROTO, parse("PING n=\x7f"));
  CHECK_INT(0, parse("anything that can be printed"));
}

TEST(tells_versions_apart) {
  CHECK_INT(RELAY_EVERSION, parse("RELAY/2 LISTEN\n"));
  CHECK_INT(RELAY_EVERSION, parse("RELAY/2\n"));
  CHECK_INT(RELAY_EVERSION, parse("RELAY/10 LISTEN\r\n"));
  CHECK_INT(RELAY_EVERSION, parse("RELAY/1.1 LISTEN port=1\n"));
  CHECK_INT(RELAY_EVERSION, parse("RELAY/2 \xff\n"));
  CHECK_INT(0, parse("RELAY/2 LISTEN"));
  CHECK_INT(RELAY_EPROTO, parse("relay/2 LISTEN\n"));
  CHECK_INT(RELAY_EPROTO, parse("RELAY/1 HELLO\n"));
}

TEST(bounds_line_and_words) {
  char line[WIRE_LINE_MAX + 2];
  char words[8 + 4 * (WIRE_WORDS_MAX + 1)] = "OK";

  memset(line, 'a', sizeof line);
  line[snprintf(line, sizeof line, "BYE reason=")] = 'a';
  CHECK_INT(0, parse_bytes(line, WIRE_LINE_MAX - 1));
  CHECK_INT(RELAY_EPROTO, parse_bytes(line, WIRE_LINE_MAX));
  CHECK_STR("an oversized line", relay__wire_diagnose(line, sizeof line));
  line[WIRE_LINE_MAX] = '\n';
  CHECK_INT(RELAY_EPROTO, parse_bytes(line, WIRE_LINE_MAX + 1));
  line[WIRE_LINE_MAX - 1] = '\n';
  CHECK_INT(WIRE_LINE_MAX, parse_bytes(line, WIRE_LINE_MAX));
  CHECK_INT(WIRE_LINE_MAX - 12, strlen(relay__wire_get(&message, "reason")));

  for (unsigned i = 0; i < WIRE_WORDS_MAX; i++)
    memcpy(words + 2 + 4 * i, " a=1\n", 6);
  CHECK(parse(words) > 0);
  CHECK_INT(WIRE_WORDS_MAX, message.word_count);
  memcpy(words + 2 + 4 * WIRE_WORDS_MAX, " a=1\n", 6);
  CHECK_INT(RELAY_EPROTO, parse(words));
  CHECK_STR("too many words", diagnose(words));
}

static int number(const char *value, uint64_t max, uint64_t *out) {
  char line[64];

  snprintf(line, sizeof line, "PING n=%s\n", value);
  CHECK(parse(line) > 0);
  return relay__wire_get_number(&message, "n", max, out);
}

TEST(reads_numbers) {
  uint64_t value = 7;

  CHECK_INT(1, number("0", 0, &value));
  CHECK_INT(0, value);
  CHECK_INT(1, number("65535", 65535, &value));
  CHECK_INT(65535, value);
  CHECK_INT(1, number("18446744073709551615", UINT64_MAX, &value));
  CHECK(value == UINT64_MAX);
  value = 7;
  CHECK_INT(RELAY_EPROTO, number("65536", 65535, &value));
  CHECK_INT(RELAY_EPROTO, number("18446744073709551616", UINT64_MAX, &value));
  CHECK_INT(RELAY_EPROTO, number("99999999999999999999", UINT64_MAX, &value));
  CHECK_INT(RELAY_EPROTO, number("1", 0, &value));
  CHECK_INT(RELAY_EPROTO, number("", 9, &value));
  CHECK_INT(RELAY_EPROTO, number("-1", 9, &value));
  CHECK_INT(RELAY_EPROTO, number("01", 9, &value));
  CHECK_INT(RELAY_EPROTO, number("0x1", 9, &value));
  CHECK_INT(RELAY_EPROTO, number("1%20", 9, &value));
  CHECK_INT(0, relay__wire_get_number(&message, "m", 9, &value));
  CHECK_INT(7, value);
}

static const char *written(struct wire_line *line) {
  if (relay__wire_end(line) != 0)
    return "overflow";
  if (line->length == WIRE_LINE_MAX)
    return "full";
  line->text[line->length] = '\0';
  return line->text;
}

TEST(writes_lines) {
  struct wire_line line;

  relay__wire_begin(&line, WIRE_OK);
  relay__wire_add(&line, "host", "2001:db8::1");
  relay__wire_add_number(&line, "port", 0);
  relay__wire_add(&line, "dial", NULL);
  relay__wire_add_number(&line, "big", UINT64_MAX);
  relay__wire_add(&line, "reason", "50% \"off\"\n\xc3\xa9");
  CHECK_STR("OK host=2001:db8::1 port=0 big=18446744073709551615 "
            "reason=50%25%20%22off%22%0A%C3%A9\n",
            written(&line));
  CHECK_INT(line.length, parse_bytes(line.text, line.length));
  CHECK_STR("50% \"off\"\n\xc3\xa9", relay__wire_get(&message, "reason"));
}

TEST(says_when_a_line_does_not_fit) {
  struct wire_line line;
  char value[WIRE_LINE_MAX + 1];

  memset(value, 'a', sizeof value);
  value[WIRE_LINE_MAX - 12] = '\0'; /* "BYE reason=" and LF */
  relay__wire_begin(&line, WIRE_BYE);
  relay__wire_add(&line, "reason", value);
  CHECK_STR("full", written(&line));
  CHECK_INT(WIRE_LINE_MAX, parse_bytes(line.text, line.length));

  value[WIRE_LINE_MAX - 12] = 'a';
  value[WIRE_LINE_MAX - 11] = '\0';
  relay__wire_begin(&line, WIRE_BYE);
  relay__wire_add(&line, "reason", value);
  relay__wire_add_number(&line, "retry", 1);
  CHECK(line.overflow);
  CHECK_INT(RELAY_EPROTO, relay__wire_end(&line));

  relay__wire_begin(&line, WIRE_BYE);
  for (unsigned i = 0; i <= WIRE_WORDS_MAX; i++)
    relay__wire_add(&line, "a", "");
  CHECK_INT(RELAY_EPROTO, relay__wire_end(&line));
  relay__wire_begin(&line, WIRE_VERB_COUNT);
  CHECK_INT(RELAY_EPROTO, relay__wire_end(&line));
}

TEST(cuts_free_text_between_characters) {
  struct wire_line line;
  char text[WIRE_LINE_MAX];
  const char *reason;

  for (size_t i = 0; i + 2 < sizeof text; i += 2)
    memcpy(text + i, "\xc3\xa9", 3);
  for (unsigned pad = 0; pad < 8; pad++) {
    relay__wire_begin(&line, WIRE_ERR);
    relay__wire_add(&line, "code", &"aaaaaaaa"[pad]);
    relay__wire_add_text(&line, "reason", text);
    CHECK_INT(0, relay__wire_end(&line));
    CHECK(line.length > WIRE_LINE_MAX - 6);
    CHECK_INT(line.length, parse_bytes(line.text, line.length));
    reason = relay__wire_get(&message, "reason");
    CHECK(reason != NULL && strlen(reason) % 2 == 0);
  }
}

TEST(leaves_out_text_without_room) {
  struct wire_line line;
  char value[WIRE_LINE_MAX - 12];

  memset(value, 'a', sizeof value);
  value[sizeof value - 1] = '\0';
  relay__wire_begin(&line, WIRE_BYE);
  relay__wire_add(&line, "reason", value);
  relay__wire_add_text(&line, "more", "text");
  relay__wire_add_text(&line, "none", NULL);
  CHECK_INT(0, relay__wire_end(&line));
  CHECK_INT(line.length, parse_bytes(line.text, line.length));
  CHECK_INT(1, message.word_count);
}

TEST(names_what_it_was) {
  CHECK_STR("nothing", relay__wire_diagnose("", 0));
  CHECK_STR("a TLS handshake", diagnose("\x16\x03\x01\x02"));
  CHECK_STR("an HTTP request", diagnose("GET / HTTP/1.1\r\n"));
  CHECK_STR("an HTTP request", diagnose("PRI * HTTP/2.0\r\n"));
  CHECK_STR("an SSH banner", diagnose("SSH-2.0-OpenSSH_9.2\r\n"));
  CHECK_STR("a PROXY protocol header", diagnose("PROXY TCP4 a b 1 2\r\n"));
  CHECK_STR("an RDP request", relay__wire_diagnose("\3\0\0\x13", 4));
  CHECK_STR("another protocol version", diagnose("RELAY/2 LISTEN\n"));
  CHECK_STR("binary data", diagnose("\xde\xad\xbe\xef"));
  CHECK_STR("an unfinished line", diagnose("RELAY/1 LISTEN"));
  CHECK_STR("an empty line", diagnose("\r\n"));
  CHECK_STR("an unknown verb", diagnose("HELLO there\n"));
  CHECK_STR("a malformed word", diagnose("PING  n=1\n"));
  CHECK_STR("a malformed percent-encoding", diagnose("PING n=%0\n"));
  CHECK_STR("a byte that must be percent-encoded", diagnose("OK f=a,b\n"));
  CHECK_STR("a byte that must be percent-encoded", diagnose("OK f=\xc3\xa9\n"));
  CHECK_STR("a line out of place", diagnose("PING n=1\n"));
}

int main(void) {
  RUN(reads_verb_and_words);
  RUN(knows_every_verb);
  RUN(waits_for_the_line_feed);
  RUN(ignores_one_carriage_return);
  RUN(decodes_values);
  RUN(refuses_what_is_no_line);
  RUN(refuses_binary_before_its_line_feed);
  RUN(tells_versions_apart);
  RUN(bounds_line_and_words);
  RUN(reads_numbers);
  RUN(writes_lines);
  RUN(says_when_a_line_does_not_fit);
  RUN(cuts_free_text_between_characters);
  RUN(leaves_out_text_without_room);
  RUN(names_what_it_was);
  return check_report();
}
