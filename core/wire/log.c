/* SPDX-License-Identifier: MIT */
/*
 * Log records and their two written forms. Values come from peers and may hold
 * any byte; one record is one line whatever they hold. So everything that is a
 * control byte, ends a line somewhere or turns its direction is escaped, and
 * what is not UTF-8 never gets out as it is.
 *
 * A line is made of pieces (time, level, event, each field) that are written
 * whole or not at all.
 */
#include "wire/log.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define HEAD_PIECES 3 /* time, level, event */
#define TIME_MAX 96   /* for any year an int can hold */

/* A line being written; `limit` bytes of text at most. */
struct out {
  char *text;
  size_t limit;
  size_t length;
  bool overflow;
  bool json;
};

static void put(struct out *out, const char *bytes, size_t count) {
  if (out->overflow || count > out->limit - out->length) {
    out->overflow = true;
    return;
  }
  memcpy(out->text + out->length, bytes, count);
  out->length += count;
}

static void put_text(struct out *out, const char *text) {
  put(out, text, strlen(text));
}

/* The character at the start of a terminated text, and its length; a byte that
   starts no valid UTF-8 gives false and length 1. */
static bool next_char(const char *text, uint32_t *point, size_t *length) {
  const unsigned char *bytes = (const unsigned char *)text;
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  size_t count;

  *length = 1;
  *point = bytes[0];
  if (bytes[0] < 0x80)
    return true;
  if (bytes[0] >= 0xf0 && bytes[0] <= 0xf4)
    count = 4;
  else if (bytes[0] >= 0xe0 && bytes[0] < 0xf0)
    count = 3;
  else if (bytes[0] >= 0xc2 && bytes[0] < 0xe0)
    count = 2;
  else
    return false;
  *point &= 0x7fu >> count;
  for (size_t i = 1; i < count; i++) {
    if ((bytes[i] & 0xc0) != 0x80) /* the end is no such byte either */
      return false;
    *point = *point << 6 | (bytes[i] & 0x3fu);
  }
  if (*point < least[count] || *point > 0x10ffff ||
      (*point >= 0xd800 && *point <= 0xdfff))
    return false;
  *length = count;
  return true;
}

/* Characters that steer a terminal, end a line for some reader, or change the
   order in which others are shown. */
static bool is_unsafe(uint32_t point) {
  return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x061c ||
         (point >= 0x200e && point <= 0x200f) ||
         (point >= 0x2028 && point <= 0x202e) ||
         (point >= 0x2066 && point <= 0x2069) || point == 0xfeff;
}

size_t relay__log_shown(const char *text) {
  uint32_t point;
  size_t length;

  return next_char(text, &point, &length) && !is_unsafe(point) ? length : 0;
}

static const char *short_escape(uint32_t point) {
  switch (point) {
  case '"':
    return "\\\"";
  case '\\':
    return "\\\\";
  case '\n':
    return "\\n";
  case '\r':
    return "\\r";
  case '\t':
    return "\\t";
  default:
    return NULL;
  }
}

/* Escapes are JSON's own in both forms, but for bytes that are not UTF-8: text
   shows them, JSON has no way to and says U+FFFD. */
static void put_escaped(struct out *out, const char *text) {
  size_t length;

  for (; *text != '\0'; text += length) {
    char code[8];
    uint32_t point;
    bool valid = next_char(text, &point, &length);
    const char *escape = valid ? short_escape(point) : NULL;

    if (escape != NULL) {
      put_text(out, escape);
    } else if (valid && !is_unsafe(point)) {
      put(out, text, length);
    } else {
      if (!valid && !out->json)
        snprintf(code, sizeof code, "\\x%02x", (unsigned char)*text);
      else
        snprintf(code, sizeof code, "\\u%04x",
                 valid ? (unsigned)(point & 0xffff) : 0xfffdu);
      put_text(out, code);
    }
  }
}

/* Whether a value can stand in text without quotes. */
static bool is_bare(const char *text) {
  if (*text == '\0')
    return false;
  for (; *text != '\0'; text++)
    if (*text <= ' ' || *text > '~' || strchr("\"\\=", *text) != NULL)
      return false;
  return true;
}

static void put_string(struct out *out, const char *text) {
  if (!out->json && is_bare(text)) {
    put_text(out, text);
    return;
  }
  put(out, "\"", 1);
  put_escaped(out, text);
  put(out, "\"", 1);
}

/* Keys are words. In text nothing else may stand before the `=`; in JSON the
   three of the head keep their names to themselves. */
static void put_key(struct out *out, const char *key) {
  if (out->json) {
    bool taken = strcmp(key, "time") == 0 || strcmp(key, "level") == 0 ||
                 strcmp(key, "event") == 0;

    put(out, "\"", 1);
    put_escaped(out, key);
    put_text(out, taken ? "_\":" : "\":");
    return;
  }
  if (*key == '\0')
    put(out, "_", 1);
  for (; *key != '\0'; key++) {
    bool good = *key > ' ' && *key <= '~' && strchr("\"\\=", *key) == NULL;

    put(out, good ? key : "_", 1);
  }
  put(out, "=", 1);
}

static void put_number(struct out *out, int64_t number) {
  char text[24];

  snprintf(text, sizeof text, "%" PRId64, number);
  put_text(out, text);
}

static void put_field(struct out *out, const relay_log_field *field) {
  put_key(out, field->key != NULL ? field->key : "");
  if (field->text != NULL)
    put_string(out, field->text);
  else
    put_number(out, field->number);
}

static const char *level_name(relay_log_level level) {
  switch (level) {
  case RELAY_LOG_DEBUG:
    return "debug";
  case RELAY_LOG_INFO:
    return "info";
  case RELAY_LOG_WARN:
    return "warn";
  case RELAY_LOG_ERROR:
    return "error";
  }
  return "unknown";
}

static void print_time(char *text, size_t size) {
  struct timespec now = {0, 0};
  struct tm utc;

  clock_gettime(CLOCK_REALTIME, &now);
  if (gmtime_r(&now.tv_sec, &utc) == NULL)
    memset(&utc, 0, sizeof utc);
  snprintf(text, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
           utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour,
           utc.tm_min, utc.tm_sec, (int)(now.tv_nsec / 1000000));
}

static void put_head(struct out *out, const relay_log_record *record,
                     size_t index, const char *time) {
  static const char *const keys[] = {"\"time\":", "\"level\":", "\"event\":"};
  const char *event = record->event != NULL ? record->event : "";
  const char *values[] = {time, level_name(record->level), event};

  if (out->json) {
    put_text(out, keys[index]);
    put_string(out, values[index]);
  } else {
    put_escaped(out, values[index]);
  }
}

/* Writes every piece that fits into `limit`; returns how many did not. */
static size_t put_pieces(struct out *out, const relay_log_record *record,
                         const char *time, size_t limit) {
  size_t start = out->json ? 1 : 0;
  size_t cut = 0;

  out->limit = limit;
  out->length = 0;
  if (out->json)
    put(out, "{", 1);
  for (size_t i = 0; i < HEAD_PIECES + record->field_count; i++) {
    size_t before = out->length;

    if (before > start)
      put_text(out, out->json ? "," : " ");
    if (i < HEAD_PIECES)
      put_head(out, record, i, time);
    else
      put_field(out, &record->fields[i - HEAD_PIECES]);
    if (out->overflow) {
      out->length = before;
      out->overflow = false;
      cut++;
    }
  }
  return cut;
}

size_t relay_log_format(const relay_log_record *record,
                        relay_log_format_kind kind, char *buffer, size_t size) {
  struct out out = {.text = buffer, .json = kind == RELAY_LOG_JSON};
  size_t tail = out.json ? 1 : 0; /* the closing brace */
  char time[TIME_MAX];
  char ellipsis[40];
  size_t cut;

  if (size == 0)
    return 0;
  buffer[0] = '\0';
  if (size < 2 + tail) /* not even "{}" */
    return 0;
  print_time(time, sizeof time);
  cut = put_pieces(&out, record, time, size - 1 - tail);
  if (cut > 0) {
    /* Once more, with room kept for saying so. */
    size_t room = size - 1 - tail;
    const char *format = out.json ? "\"...\":%zu" : "...=%zu";
    size_t most = 1 + (size_t)snprintf(ellipsis, sizeof ellipsis, format,
                                       HEAD_PIECES + record->field_count);

    cut = put_pieces(&out, record, time, room > most + tail ? room - most : 1);
    snprintf(ellipsis, sizeof ellipsis, format, cut);
    out.limit = room;
    if (strlen(ellipsis) + 1 <= room - out.length) {
      if (out.length > tail)
        put_text(&out, out.json ? "," : " ");
      put_text(&out, ellipsis);
    }
  }
  out.limit = size - 1;
  if (out.json)
    put(&out, "}", 1);
  buffer[out.length] = '\0';
  return out.length;
}

void relay__log_fields(const struct logger *logger, relay_log_level level,
                       const char *event, const relay_log_field *fields,
                       size_t count) {
  relay_log_record record = {
      .size = sizeof record,
      .level = level,
      .event = event,
      .fields = fields,
      .field_count = count,
  };

  if (logger->log != NULL && level >= logger->level)
    logger->log(logger->data, &record);
}
