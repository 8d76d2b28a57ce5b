/* SPDX-License-Identifier: MIT */
/* Log records, their two written forms, and the words for errors that go into
   them: one event is one line, whatever its values hold. */
#include "check.h"
#include "wire/log.h"

#include <stdlib.h>
#include <uv.h>

#define TIME_LENGTH 24 /* 2026-11-22T20:03:01.123Z */

static char line[4096];

static size_t format(relay_log_format_kind kind, const char *event,
                     const relay_log_field *fields, size_t count, size_t size) {
  relay_log_record record = {sizeof record, RELAY_LOG_INFO, event, fields,
                             count};
  size_t length = relay_log_format(&record, kind, line, size);

  CHECK_INT(size > 0 ? strlen(line) : 0, length);
  return length;
}

/* The line after its time. */
static const char *text_of(const char *key, const char *value) {
  relay_log_field field = {key, value, -42};

  format(RELAY_LOG_TEXT, "visitor closed", &field, 1, sizeof line);
  return line + TIME_LENGTH;
}

/* The object after time, level and event. */
static const char *json_of(const char *key, const char *value) {
  relay_log_field field = {key, value, -42};
  const char *at;

  format(RELAY_LOG_JSON, "x", &field, 1, sizeof line);
  at = strstr(line, "\"event\":\"x\",");
  return at != NULL ? at + 12 : line;
}

TEST(writes_text) {
  relay_log_field fields[] = {LOG_NUMBER("conn", 7),
                              LOG_TEXT("from", "127.0.0.1:5000"),
                              LOG_TEXT("reason", "two words")};
  int year, month, day, hour, minute, second, milli, end = 0;

  format(RELAY_LOG_TEXT, "visitor closed", fields, 3, sizeof line);
  CHECK_INT(7, sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month,
                      &day, &hour, &minute, &second, &milli, &end));
  CHECK_INT(TIME_LENGTH, end);
  CHECK(year >= 2024);
  CHECK_STR(" info visitor closed conn=7 from=127.0.0.1:5000 "
            "reason=\"two words\"",
            line + TIME_LENGTH);
}

TEST(writes_json) {
  relay_log_field fields[] = {LOG_NUMBER("conn", INT64_MIN),
                              LOG_TEXT("from", "[::1]:5000")};

  format(RELAY_LOG_JSON, "visitor closed", fields, 2, sizeof line);
  CHECK_MEM("{\"time\":\"2", line, 10);
  CHECK_STR("Z\",\"level\":\"info\",\"event\":\"visitor closed\","
            "\"conn\":-9223372036854775808,\"from\":\"[::1]:5000\"}",
            line + 9 + TIME_LENGTH - 1);
}

TEST(quotes_text_where_needed) {
  CHECK_STR(" info visitor closed a=plain", text_of("a", "plain"));
  CHECK_STR(" info visitor closed a=-42", text_of("a", NULL));
  CHECK_STR(" info visitor closed a=\"\"", text_of("a", ""));
  CHECK_STR(" info visitor closed a=\"b=c\"", text_of("a", "b=c"));
  CHECK_STR(" info visitor closed a=\"\\\"\\\\\"", text_of("a", "\"\\"));
  CHECK_STR(" info visitor closed a=\"\xc3\xa9\"", text_of("a", "\xc3\xa9"));
  CHECK_STR(" info visitor closed a_b_=1", text_of("a b\n", "1"));
  CHECK_STR(" info visitor closed _=1", text_of("", "1"));
}

TEST(escapes_in_text) {
  CHECK_STR(" info visitor closed a=\"\\r\\n\\t\\u001b[2J\\u007f\"",
            text_of("a", "\r\n\t\x1b[2J\x7f"));
  CHECK_STR(" info visitor closed a=\"\\u009b\\u2028\\u202e\\ufeff\"",
            text_of("a", "\xc2\x9b\xe2\x80\xa8\xe2\x80\xae\xef\xbb\xbf"));
  CHECK_STR(" info visitor closed a=\"\\x80\\xff\\xc3\"",
            text_of("a", "\x80\xff\xc3"));
  CHECK_STR(" info visitor closed a=\"\\xc0\\x80\\xed\\xa0\\x80\"",
            text_of("a", "\xc0\x80\xed\xa0\x80"));
  CHECK_STR(" info visitor closed a=\"\\xf4\\x90\\x80\\x80\"",
            text_of("a", "\xf4\x90\x80\x80"));
  CHECK_STR(" info visitor closed a=\"\xf0\x9f\x90\x8c\"",
            text_of("a", "\xf0\x9f\x90\x8c"));
  CHECK_STR(" info visitor closed a=\"\\xe2\\x82\"", text_of("a", "\xe2\x82"));
}

TEST(escapes_in_json) {
  CHECK_STR("\"a\":\"\\\"\\\\\\r\\n\\t\\u001b\\u007f\\u009b\\u2029\"}",
            json_of("a", "\"\\\r\n\t\x1b\x7f\xc2\x9b\xe2\x80\xa9"));
  CHECK_STR("\"a\":\"\\ufffd\\ufffd\xc3\xa9\"}",
            json_of("a", "\x80\xff\xc3\xa9"));
  CHECK_STR("\"a\\\"b\":-42}", json_of("a\"b", NULL));
  CHECK_STR("\"event_\":\"y\"}", json_of("event", "y"));
}

TEST(is_one_line_always) {
  char value[256];
  relay_log_field fields[2] = {{value, value, 0}, {"a", value, 0}};

  srand(39);
  for (unsigned round = 0; round < 20000; round++) {
    relay_log_format_kind kind = round % 2 ? RELAY_LOG_JSON : RELAY_LOG_TEXT;
    size_t length = (size_t)rand() % (sizeof value - 1);
    bool clean = true;

    for (size_t i = 0; i < length; i++)
      value[i] = (char)(rand() % 3 ? rand() : rand() % 32);
    value[length] = '\0';
    length = format(kind, value, fields, 2, (size_t)rand() % sizeof line);
    for (size_t i = 0; i < length; i++)
      clean = clean && (unsigned char)line[i] >= ' ' && line[i] != 0x7f &&
              !(line[i] == '\xc2' && (unsigned char)line[i + 1] < 0xa0);
    CHECK(clean);
  }
}

TEST(cuts_between_fields) {
  char value[100];
  relay_log_field fields[] = {LOG_TEXT("a", "1"), LOG_TEXT("b", value),
                              LOG_TEXT("c", "3")};

  memset(value, 'v', sizeof value);
  value[sizeof value - 1] = '\0';
  format(RELAY_LOG_TEXT, "x", fields, 3, 100);
  CHECK_STR(" info x a=1 c=3 ...=1", line + TIME_LENGTH);
  format(RELAY_LOG_JSON, "x", fields, 3, 120);
  CHECK_STR("\"a\":\"1\",\"c\":\"3\",\"...\":1}", strstr(line, "\"a\""));
}

TEST(fits_exactly_or_is_cut) {
  relay_log_field field = LOG_TEXT("a", "1");

  for (int kind = RELAY_LOG_TEXT; kind <= RELAY_LOG_JSON; kind++) {
    size_t whole =
        format((relay_log_format_kind)kind, "x", &field, 1, sizeof line);

    CHECK_INT(whole,
              format((relay_log_format_kind)kind, "x", &field, 1, whole + 1));
    CHECK(strstr(line, "...") == NULL);
    CHECK(format((relay_log_format_kind)kind, "x", &field, 1, whole) < whole);
    CHECK(strstr(line, "...") != NULL);
  }
}

TEST(takes_any_size) {
  relay_log_field field = LOG_TEXT("key", "value");

  CHECK_INT(0, relay_log_format(&(relay_log_record){.event = "x"},
                                RELAY_LOG_TEXT, NULL, 0));
  for (size_t size = 0; size < 160; size++) {
    for (int kind = RELAY_LOG_TEXT; kind <= RELAY_LOG_JSON; kind++) {
      size_t length;

      memset(line, '#', sizeof line);
      length = format((relay_log_format_kind)kind, "event", &field, 1, size);
      CHECK(size == 0 ? length == 0 : length < size);
      CHECK(size == 0 || line[length] == '\0');
      CHECK(line[size] == '#');
      if (kind == RELAY_LOG_JSON && length > 0)
        CHECK(line[0] == '{' && line[length - 1] == '}');
    }
  }
  CHECK_INT(2, format(RELAY_LOG_JSON, "event", &field, 1, 3));
  CHECK_STR("{}", line);
}

TEST(takes_what_is_missing) {
  CHECK(format(RELAY_LOG_TEXT, NULL, NULL, 0, sizeof line) > 0);
  CHECK_STR(" info ", line + TIME_LENGTH);
  CHECK_STR("\"\":-42}", json_of(NULL, NULL));
  CHECK_STR(" info visitor closed a=\"\"",
            text_of("a", LOG_TEXT("a", NULL).text));
}

static unsigned calls;

static void on_log(void *data, const relay_log_record *record) {
  calls++;
  CHECK(data == &calls);
  CHECK_INT(sizeof *record, record->size);
  CHECK_STR("agent connected", record->event);
  CHECK_INT(2, record->field_count);
  CHECK_INT(7, record->fields[0].number);
  CHECK_STR("here", record->fields[1].text);
}

TEST(makes_records_from_a_level_on) {
  struct logger logger = {on_log, &calls, RELAY_LOG_INFO};

  for (int level = RELAY_LOG_DEBUG; level <= RELAY_LOG_ERROR; level++)
    relay__log(&logger, (relay_log_level)level, "agent connected",
               LOG_NUMBER("agent", 7), LOG_TEXT("from", "here"));
  CHECK_INT(3, calls);
  logger.log = NULL;
  relay__log_fields(&logger, RELAY_LOG_ERROR, "agent connected", NULL, 0);
  CHECK_INT(3, calls);
}

TEST(names_errors) {
  CHECK_STR("port-taken", relay_error_name(RELAY_EPORT_TAKEN));
  CHECK_STR("port is taken", relay_strerror(RELAY_EPORT_TAKEN));
  CHECK_STR("ECONNRESET", relay_error_name(UV_ECONNRESET));
  CHECK_STR("connection reset by peer", relay_strerror(UV_ECONNRESET));
  CHECK_STR("EOF", relay_error_name(UV_EOF));
  CHECK_STR("ok", relay_error_name(0));
  CHECK_STR("no error", relay_strerror(0));
  CHECK_STR("unknown error", relay_strerror(-12345));
  CHECK_STR("unknown", relay_error_name(1));
  CHECK_STR(RELAY_VERSION, relay_version());
#define SEEN(number, name, code, text)                                         \
  CHECK_STR(text, relay_strerror(number));                                     \
  CHECK_STR(code, relay_error_name(number));
  RELAY_ERROR_MAP(SEEN)
#undef SEEN
}

int main(void) {
  RUN(writes_text);
  RUN(writes_json);
  RUN(quotes_text_where_needed);
  RUN(escapes_in_text);
  RUN(escapes_in_json);
  RUN(is_one_line_always);
  RUN(cuts_between_fields);
  RUN(fits_exactly_or_is_cut);
  RUN(takes_any_size);
  RUN(takes_what_is_missing);
  RUN(makes_records_from_a_level_on);
  RUN(names_errors);
  return check_report();
}
