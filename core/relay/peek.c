/* SPDX-License-Identifier: MIT */
/*
 * A look at a visitor's first bytes, for policies that asked for it. The bytes
 * stay in the kernel, so splice still carries them. SO_RCVLOWAT makes poll
 * wait for as many as are needed; a look that stays short all the same (an
 * urgent byte, a FIN, silence) is the last.
 */
#include <poll.h>
#include <sys/socket.h>

#include "relay/private.h"

#define PEEK_MAX 4096

static void set_low_water(struct visitor *visitor, unsigned need) {
  int bytes = (int)need;

  setsockopt(visitor->stream->fd, SOL_SOCKET, SO_RCVLOWAT, &bytes,
             sizeof(bytes));
  visitor->peek_need = need;
}

static void wait_for(struct visitor *visitor, unsigned need) {
  set_low_water(visitor, need);
  if (relay__stream_watch(visitor->stream, UV_READABLE) != 0)
    relay__visitor_end(visitor, UV_ENOMEM);
}

/* Whether nothing will come after what is there. */
static bool has_fin(const struct visitor *visitor) {
#ifdef POLLRDHUP
  struct pollfd look = {visitor->stream->fd, POLLRDHUP, 0};

  return poll(&look, 1, 0) == 1 && (look.revents & POLLRDHUP) != 0;
#else
  (void)visitor;
  return false;
#endif
}

/* Looks, and asks the hook. */
static void ask(struct visitor *visitor, bool late) {
  struct relay *relay = visitor->relay;
  struct verdict verdict;
  char bytes[PEEK_MAX];
  ssize_t count = relay__stream_peek(visitor->stream, bytes, sizeof(bytes));
  bool eof = count == 0;

  if (count == UV_EAGAIN)
    count = 0;
  if (count < 0) {
    relay__visitor_end(visitor, (int)count);
    return;
  }
  if (count == 0 && !eof && !late)
    return; /* not readable after all */
  if (count > 0 && (size_t)count < visitor->peek_need)
    eof = has_fin(visitor);
  visitor->peek_is_last = eof || late || (size_t)count < visitor->peek_need ||
                          (size_t)count == sizeof(bytes);
  if (relay__ask_peek(visitor, bytes, (size_t)count, eof, &verdict)) {
    visitor->peek_count = (unsigned)count;
    relay__peek_decide(visitor, &verdict.given);
    return;
  }
  if (visitor->ended)
    return;
  visitor->peek_count = (unsigned)count;
  relay__stream_watch(visitor->stream, 0);
  relay__deadline_set(&visitor->deadline, relay->options.hook_visitor_ms);
}

void relay__peek_start(struct visitor *visitor) {
  visitor->phase = VISITOR_PEEKING;
  visitor->peek_until_ms = relay__now_ms(visitor->relay) + visitor->peek_ms;
  relay__deadline_set(&visitor->deadline, visitor->peek_ms);
  wait_for(visitor, 1);
}

void relay__peek_event(struct visitor *visitor) {
  if (!visitor->question.entry.listed)
    ask(visitor, false);
}

void relay__peek_late(struct visitor *visitor) {
  ask(visitor, true);
}

static void deny(struct visitor *visitor, const char *reason) {
  relay__log(&visitor->relay->logger, RELAY_LOG_INFO, "visitor denied",
             LOG_NUMBER("conn", visitor->number),
             LOG_TEXT("from", visitor->from), LOG_TEXT("reason", reason));
  relay__visitor_end(visitor, RELAY_EDENIED);
}

static void wait_for_more(struct visitor *visitor, size_t need) {
  uint64_t now = relay__now_ms(visitor->relay);

  if (visitor->peek_is_last || now >= visitor->peek_until_ms) {
    deny(visitor, "the bytes that policy needs did not come");
  } else if (need <= visitor->peek_count || need > PEEK_MAX) {
    deny(visitor, "policy needs more bytes than there can be");
  } else {
    relay__deadline_set(&visitor->deadline, visitor->peek_until_ms - now);
    wait_for(visitor, (unsigned)need);
  }
}

void relay__peek_decide(struct visitor *visitor, const relay_verdict *verdict) {
  if (visitor->ended)
    return;
  if (verdict->answer != RELAY_ALLOW && verdict->answer != RELAY_PICK &&
      verdict->answer != RELAY_NEED) {
    deny(visitor, verdict->reason != NULL ? verdict->reason : "by policy");
    return;
  }
  if (verdict->answer == RELAY_NEED) {
    wait_for_more(visitor, verdict->need);
    return;
  }
  if (verdict->answer == RELAY_PICK)
    visitor->chosen = verdict->agent;
  set_low_water(visitor, 1);
  relay__deadline_clear(&visitor->deadline);
  visitor->peek_ms = 0;
  if (relay__stream_watch(visitor->stream, 0) != 0)
    relay__visitor_end(visitor, UV_ENOMEM);
  else
    relay__visitor_place(visitor, NULL);
}
