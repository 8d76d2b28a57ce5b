/* SPDX-License-Identifier: MIT */
/*
 * Data connections that an agent opens ahead of need, so that a visitor is
 * joined with no round trip. One dies with its session, is watched for its end
 * while it waits, and is looked at once more before a visitor gets it.
 */
#include <stdlib.h>

#include "relay/private.h"

/* Before what lies between the two machines forgets an idle connection. */
#define WAITING_AGE_MS (4 * 60 * 1000)

static struct stream *release(struct waiting *waiting) {
  struct session *session = waiting->session;
  struct stream *stream = waiting->stream;

  link_remove(&waiting->link);
  session->waiting_count--;
  session->relay->stats.waiting--;
  free(waiting);
  return stream;
}

void relay__waiting_end(struct waiting *waiting) {
  relay__stream_close(release(waiting));
}

void relay__waiting_retire(struct session *session) {
  uint64_t now = relay__now_ms(session->relay);

  /* The oldest are the first of the list. This side retires them, since it
     knows that no visitor is on its way to one. */
  while (!link_is_empty(&session->waiting)) {
    struct waiting *oldest =
        container_of(session->waiting.next, struct waiting, link);

    if (now - oldest->since_ms < WAITING_AGE_MS)
      break;
    relay__waiting_end(oldest);
  }
}

/* Whatever it says now, it is out of turn: it ended, or broke the protocol. */
static void on_event(struct stream *stream, int events) {
  char byte;

  (void)events;
  if (relay__stream_peek(stream, &byte, 1) != UV_EAGAIN)
    relay__waiting_end(stream->owner);
}

/* Numbers never repeat within a session, but connections may overtake each
   other: the last 64 numbers are remembered. */
static bool take_number(struct session *session, uint64_t n) {
  uint64_t ahead = n - session->waiting_last;
  uint64_t behind = session->waiting_last - n;

  if (n > session->waiting_last) {
    session->waiting_seen = ahead < 64 ? session->waiting_seen << ahead : 0;
    session->waiting_last = n;
    behind = 0;
  }
  if (behind >= 64 || (session->waiting_seen >> behind & 1) != 0)
    return false;
  session->waiting_seen |= (uint64_t)1 << behind;
  return true;
}

/* Why it is not taken; NULL when it is. */
static const char *find_fault(struct session *session,
                              const struct wire_message *wait) {
  uint64_t n = 0;

  if (session == NULL)
    return "no such session";
  if (session->waiting_count >= session->pool)
    return "more than were granted";
  if (relay__wire_get_number(wait, "n", UINT64_MAX, &n) != 1 ||
      !take_number(session, n))
    return "its number is not a new one";
  return NULL;
}

void relay__waiting_start(struct relay *relay, struct stream *stream,
                          const struct wire_message *wait, const char *from) {
  const char *id = relay__wire_get(wait, "session");
  struct session *session = id != NULL ? relay__session_find(relay, id) : NULL;
  const char *fault = find_fault(session, wait);
  struct waiting *waiting = NULL;

  if (fault == NULL)
    waiting = calloc(1, sizeof(*waiting));
  if (waiting == NULL || relay__stream_watch(stream, UV_READABLE) != 0) {
    free(waiting);
    relay->stats.refused_total++;
    relay__stream_close(stream);
    relay__log(&relay->logger, RELAY_LOG_DEBUG, "waiting connection refused",
               LOG_TEXT("from", from),
               LOG_TEXT("reason", fault != NULL ? fault : "out of memory"));
    return;
  }
  waiting->session = session;
  waiting->stream = stream;
  waiting->since_ms = relay__now_ms(relay);
  relay__stream_own(stream, on_event, waiting);
  link_append(&session->waiting, &waiting->link);
  session->waiting_count++;
  relay->stats.waiting++;
}

struct stream *relay__waiting_take(struct session *session,
                                   struct visitor *visitor) {
  struct wire_line line;
  struct stream *stream;
  char byte;

  while (!link_is_empty(&session->waiting)) {
    /* The youngest is the likeliest to be alive. */
    stream = release(container_of(session->waiting.prev, struct waiting, link));
    if (relay__stream_peek(stream, &byte, 1) == UV_EAGAIN) {
      relay__visitor_line(visitor, &line);
      if (relay__wire_end(&line) == 0 &&
          relay__stream_send(stream, line.text, line.length) ==
              (ssize_t)line.length)
        return stream;
    }
    relay__stream_close(stream);
  }
  return NULL;
}
