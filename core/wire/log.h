/* SPDX-License-Identifier: MIT */
/*
 * Making log records. A logger is what its owner embeds: where records go and
 * from which level on. Fields are listed in place:
 *
 *   relay__log(&r->logger, RELAY_LOG_INFO, "agent connected",
 *              LOG_NUMBER("agent", id), LOG_TEXT("from", from));
 *
 * A record without fields is relay__log_fields(..., NULL, 0).
 */
#ifndef RELAY_LOG_H
#define RELAY_LOG_H

#include <relay/base.h>

struct logger {
  relay_log_fn log; /* may be NULL */
  void *data;
  relay_log_level level;
};

/* A NULL text would make the field a number. */
static inline const char *log__text(const char *text) {
  return text != NULL ? text : "";
}

#define LOG_TEXT(key, text) ((relay_log_field){(key), log__text(text), 0})
#define LOG_NUMBER(key, number)                                                \
  ((relay_log_field){(key), NULL, (int64_t)(number)})

/* `fields` holds `count` of them; they are borrowed. Nothing is made when the
   level is off. */
void relay__log_fields(const struct logger *logger, relay_log_level level,
                       const char *event, const relay_log_field *fields,
                       size_t count);

/* The length of the character that `text` starts with, if it can be shown as it
   is; 0 for what is not UTF-8, steers a terminal or turns the line around. */
size_t relay__log_shown(const char *text);

#define relay__log(logger, level, event, ...)                                  \
  relay__log_fields(                                                           \
      (logger), (level), (event), (relay_log_field[]){__VA_ARGS__},            \
      sizeof((relay_log_field[]){__VA_ARGS__}) / sizeof(relay_log_field))

#endif
