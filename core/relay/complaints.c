/* SPDX-License-Identifier: MIT */
/*
 * What is logged of those who were refused. Each has a record of its own while
 * penalties are off. While they are on, whoever is refused could fill the log:
 * then the first of each kind has one, those that follow are counted, and each
 * second one record says how many they were.
 */
#include <string.h>

#include "relay/private.h"

#define EACH_MS 1000

static void say(struct relay *relay, relay_log_level level, const char *from,
                const char *what) {
  relay__log(&relay->logger, level, "connection refused",
             LOG_TEXT("from", from), LOG_TEXT("reason", what));
}

static void on_due(struct deadline *deadline) {
  struct relay *relay = container_of(deadline, struct relay, complaints.due);
  uint64_t now = relay__now_ms(relay);

  for (size_t i = 0; i < COMPLAINT_KINDS; i++) {
    struct complaint *kind = &relay->complaints.kinds[i];
    uint64_t count = kind->count;

    if (count == 0)
      continue;
    kind->count = 0;
    kind->logged_ms = now;
    if (count == 1)
      say(relay, kind->level, kind->from, kind->what);
    else
      relay__log(&relay->logger, kind->level, "connections refused",
                 LOG_NUMBER("count", count), LOG_TEXT("last_from", kind->from),
                 LOG_TEXT("reason", kind->what));
  }
}

/* There are not so many kinds; if there are, the last place is for the rest. */
static struct complaint *find_kind(struct complaints *complaints,
                                   relay_log_level level, const char *what) {
  struct complaint *kind = complaints->kinds;

  while (kind->what != NULL &&
         (strcmp(kind->what, what) != 0 || kind->level != level) &&
         kind < complaints->kinds + COMPLAINT_KINDS - 1)
    kind++;
  return kind;
}

void relay__complaints_init(struct relay *relay) {
  relay__deadline_init(&relay->complaints.due, &relay->plane, on_due);
}

void relay__complain_at(struct relay *relay, relay_log_level level,
                        const char *from, const char *what) {
  uint64_t now = relay__now_ms(relay);
  struct complaint *kind;

  if (!relay->penalties.on) {
    say(relay, level, from, what);
    return;
  }
  kind = find_kind(&relay->complaints, level, what);
  if (kind->what == NULL || now - kind->logged_ms >= EACH_MS) {
    kind->what = what;
    kind->level = level;
    kind->logged_ms = now;
    say(relay, level, from, what);
    return;
  }
  kind->what = what;
  kind->level = level;
  kind->count++;
  memcpy(kind->from, from, strlen(from) + 1);
  if (!relay__deadline_is_set(&relay->complaints.due) && !relay->closing)
    relay__deadline_set(&relay->complaints.due, EACH_MS);
}

void relay__complain(struct relay *relay, const char *from, const char *what) {
  relay__complain_at(relay, RELAY_LOG_WARN, from, what);
}

bool relay__denial_is_due(struct relay *relay) {
  uint64_t now = relay__now_ms(relay);

  if (relay->denied_logged_ms != 0 && now - relay->denied_logged_ms < EACH_MS)
    return false;
  relay->denied_logged_ms = now;
  return true;
}
