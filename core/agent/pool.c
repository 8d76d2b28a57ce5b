/* SPDX-License-Identifier: MIT */
/*
 * Data connections ahead of need: each says WAIT and then waits for a VISITOR
 * line, so that a visitor is joined with no round trip to this side. Its line
 * is read so that not one byte of payload is taken.
 *
 * Used ones are replaced at once; failed ones after a growing wait; old ones
 * when their age ends, before what is between the two machines forgets them.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/private.h"

/* One that lived this long did not fail: its place is filled without fear. */
#define SOUND_MS 5000

struct waiting {
  struct link link; /* in the pool; unlinked once closing */
  struct relay_agent *agent;
  struct dial dial;
  struct stream *stream; /* connected */
  struct deadline age;   /* its closing frees this */
  uint64_t since_ms;
  bool closing;
  size_t line_length;
  char line[WIRE_LINE_MAX];
};

static void on_waiting_closed(struct deadline *age) {
  free(container_of(age, struct waiting, age));
}

static void close_waiting(struct waiting *waiting) {
  if (waiting->closing)
    return;
  waiting->closing = true;
  link_remove(&waiting->link);
  waiting->agent->pool.count--;
  relay__dial_cancel(&waiting->dial);
  relay__stream_close(waiting->stream);
  waiting->stream = NULL;
  relay__deadline_close(&waiting->age, on_waiting_closed);
}

/* No more attempts for a while, which grows. */
static void hold_off(struct relay_agent *agent) {
  struct pool *pool = &agent->pool;

  if (relay__deadline_is_set(&pool->refill))
    return;
  relay__deadline_set(&pool->refill, relay__agent_jitter(pool->backoff_ms));
  pool->backoff_ms *= 2;
  if (pool->backoff_ms > agent->options.backoff_max_ms)
    pool->backoff_ms = agent->options.backoff_max_ms;
}

static void fail_waiting(struct waiting *waiting, int error) {
  struct relay_agent *agent = waiting->agent;

  relay__log(&agent->logger, RELAY_LOG_DEBUG, "waiting connection lost",
             LOG_TEXT("reason", relay_strerror(error)));
  if (waiting->since_ms != 0 &&
      uv_now(agent->plane.loop) - waiting->since_ms >= SOUND_MS)
    agent->pool.backoff_ms = agent->options.backoff_min_ms;
  close_waiting(waiting);
  hold_off(agent);
}

/* ---- its visitor ------------------------------------------------------ */

static void on_waiting_event(struct stream *stream, int events) {
  struct waiting *waiting = stream->owner;
  struct relay_agent *agent = waiting->agent;
  struct wire_message message;
  int status = relay__stream_read_line(
      stream, waiting->line, &waiting->line_length, sizeof(waiting->line));

  (void)events;
  if (status == 0)
    return;
  if (status == 1) {
    status = relay__wire_parse(&message, waiting->line, waiting->line_length);
    if (status > 0 && message.verb != WIRE_VISITOR)
      status = RELAY_EPROTO;
  }
  if (status <= 0) {
    fail_waiting(waiting, status);
    return;
  }
  waiting->stream = NULL; /* the visit's from here on */
  close_waiting(waiting);
  agent->pool.backoff_ms = agent->options.backoff_min_ms;
  relay__pool_fill(agent);
  relay__visit_arrive(agent, &message, stream);
}

static void on_waiting_dialed(struct dial *dial, int status,
                              struct stream *stream) {
  struct waiting *waiting = dial->owner;
  struct relay_agent *agent = waiting->agent;

  relay__session_note_data(agent, status);
  if (status == 0) {
    waiting->stream = stream;
    relay__stream_own(stream, on_waiting_event, waiting);
    status = relay__stream_watch(stream, UV_READABLE);
  }
  if (status != 0) {
    fail_waiting(waiting, status);
    return;
  }
  waiting->since_ms = uv_now(agent->plane.loop);
  relay__deadline_set(&waiting->age,
                      relay__agent_jitter(agent->options.pool_age_ms));
}

/* ---- keeping the number ----------------------------------------------- */

static void on_age(struct deadline *age) {
  struct waiting *waiting = container_of(age, struct waiting, age);
  struct relay_agent *agent = waiting->agent;

  if (waiting->stream == NULL) {
    fail_waiting(waiting, UV_ETIMEDOUT);
    return;
  }
  close_waiting(waiting);
  relay__pool_fill(agent);
}

static int start_waiting(struct waiting *waiting) {
  struct relay_agent *agent = waiting->agent;
  struct wire_line line;

  relay__wire_begin(&line, WIRE_WAIT);
  relay__wire_add(&line, "session", agent->session.id);
  relay__wire_add_number(&line, "n", ++agent->pool.next_n);
  int err =
      relay__keys_secure_wait(agent, &waiting->dial, &line, agent->pool.next_n);
  if (err == 0)
    err = relay__wire_end(&line);
  if (err == 0)
    err = relay__dial_open_with(&waiting->dial, line.text, line.length);
  if (err == 0)
    err = relay__session_dial(agent, &waiting->dial);
  return err;
}

static int add_waiting(struct relay_agent *agent) {
  struct waiting *waiting = calloc(1, sizeof(*waiting));
  if (waiting == NULL)
    return UV_ENOMEM;
  waiting->agent = agent;
  relay__dial_init(&waiting->dial, &agent->plane, on_waiting_dialed, waiting);
  relay__deadline_init(&waiting->age, &agent->plane, on_age);
  relay__deadline_set(&waiting->age, agent->options.connect_ms);
  link_append(&agent->pool.waiting, &waiting->link);
  agent->pool.count++;
  int err = start_waiting(waiting);
  if (err != 0)
    close_waiting(waiting);
  return err;
}

void relay__pool_fill(struct relay_agent *agent) {
  struct pool *pool = &agent->pool;

  if (agent->session.phase != SESSION_OPEN ||
      relay__deadline_is_set(&pool->refill))
    return;
  while (pool->count < agent->session.pool) {
    /* One for it, one for the service it may need, one to spare. */
    if (!relay__plane_has_descriptors(&agent->plane, 3) ||
        add_waiting(agent) != 0) {
      hold_off(agent);
      return;
    }
  }
}

static void on_refill(struct deadline *refill) {
  relay__pool_fill(container_of(refill, struct relay_agent, pool.refill));
}

void relay__pool_init(struct relay_agent *agent) {
  struct pool *pool = &agent->pool;

  link_init(&pool->waiting);
  pool->backoff_ms = agent->options.backoff_min_ms;
  relay__deadline_init(&pool->refill, &agent->plane, on_refill);
}

void relay__pool_drop(struct relay_agent *agent) {
  struct pool *pool = &agent->pool;

  relay__deadline_clear(&pool->refill);
  while (!link_is_empty(&pool->waiting))
    close_waiting(container_of(pool->waiting.next, struct waiting, link));
}

void relay__pool_close(struct relay_agent *agent) {
  relay__pool_drop(agent);
  relay__deadline_close(&agent->pool.refill, NULL);
}
