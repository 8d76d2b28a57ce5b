/* SPDX-License-Identifier: MIT */
/*
 * Two streams joined. See pair.h. Every event takes the same path: pump the
 * flows it concerns, then update(), which alone decides whether the pair has
 * ended, what to watch, and when to look again.
 *
 *   moving ──both FINs passed on────────────────────► ended in order
 *     │ └───a flow was cut──► held ──all acknowledged─► ended by reset
 *     └──time-out, limit, closed from outside──────────► ended by reset
 *
 * "Held" is for bytes that came before a reset: they are delivered first, as
 * long as there is progress.
 */
#include "flow/pair.h"

#include <stdlib.h>

#include "net/container.h"

/* A reset is held back while unacknowledged bytes get fewer; without any
   progress for this long it is passed on all the same. */
#define HELD_SILENCE_MS 5000
/* How often to look, at first and at most: no event tells of it. */
#define HELD_LOOK_MIN_MS 1
#define HELD_LOOK_MAX_MS 16
/* Most pairs live less than this, and are spared what long ones need. */
#define YOUNG_MS 1000

static uint64_t now_ms(const struct pair *pair) {
  return uv_now(pair->plane->loop);
}

/* ---- the end ---------------------------------------------------------- */

void relay__pair_free(struct pair *pair) {
  relay__rate_share_release(pair->limits.share);
  free(pair);
}

static void on_deadline_closed(struct deadline *deadline) {
  struct pair *pair = container_of(deadline, struct pair, deadline);
  bool is_own = pair->worker == NULL; /* else on_end gives it away */

  if (pair->on_end != NULL)
    pair->on_end(pair, pair->reason);
  if (is_own)
    relay__pair_free(pair);
}

static void finish(struct pair *pair, int reason) {
  unsigned i;

  if (pair->ended)
    return;
  pair->ended = true;
  pair->reason = reason;
  for (i = 0; i < pair->flow_count; i++)
    relay__flow_close(&pair->flows[i]);
  for (i = 0; i < pair->flow_count; i++) {
    if (reason == 0)
      relay__stream_pardon(pair->streams[i]);
    relay__stream_close(pair->streams[i]);
  }
  relay__deadline_close(&pair->deadline, on_deadline_closed);
}

/* ---- what the state of the flows means -------------------------------- */

static bool every_flow(const struct pair *pair,
                       bool (*holds)(const struct flow *flow)) {
  unsigned i;

  for (i = 0; i < pair->flow_count; i++)
    if (!holds(&pair->flows[i]))
      return false;
  return true;
}

static bool is_shut(const struct flow *flow) {
  return flow->phase == FLOW_SHUT;
}

static unsigned count_shut(const struct pair *pair) {
  unsigned count = 0;
  unsigned i;

  for (i = 0; i < pair->flow_count; i++)
    count += is_shut(&pair->flows[i]);
  return count;
}

static int flow_error(const struct pair *pair) {
  unsigned i;

  for (i = 0; i < pair->flow_count; i++)
    if (pair->flows[i].error != 0)
      return pair->flows[i].error;
  return 0;
}

/* The first stream that died; NULL: none did. */
static const struct stream *first_reset(const struct pair *pair) {
  unsigned i;

  for (i = 0; i < pair->flow_count; i++)
    if (pair->streams[i]->reset)
      return pair->streams[i];
  return NULL;
}

/* Why a flow was cut. */
static int cut_reason(const struct pair *pair) {
  const struct stream *reset = first_reset(pair);

  return reset != NULL ? reset->error : UV_ECONNRESET;
}

static size_t unsent_bytes(const struct pair *pair) {
  size_t unsent = 0;
  unsigned i;

  for (i = 0; i < pair->flow_count; i++)
    unsent += relay__stream_unsent(pair->streams[i]);
  return unsent;
}

static size_t held_bytes(const struct pair *pair) {
  size_t held = unsent_bytes(pair);
  unsigned i;

  for (i = 0; i < pair->flow_count; i++)
    if (pair->flows[i].hold != NULL)
      held += pair->flows[i].hold->length;
  return held;
}

/* ---- deadlines -------------------------------------------------------- */

static void sooner(uint64_t *due, uint64_t ms) {
  if (ms < *due)
    *due = ms;
}

static void arm(struct pair *pair, uint64_t due) {
  uint64_t now = now_ms(pair);

  if (due == UINT64_MAX || (relay__deadline_is_set(&pair->deadline) &&
                            pair->due_ms <= due && pair->due_ms >= now))
    return; /* an early wake-up only looks and arms again */
  pair->due_ms = due;
  relay__deadline_set(&pair->deadline, due > now ? due - now : 0);
}

/* Whether anything was passed on since `shut` flows were: an end is, too. */
static void note_moved(struct pair *pair, size_t moved, unsigned shut) {
  if (moved != 0 || count_shut(pair) != shut)
    relay__pair_note_moved(pair);
}

/* From now on the kernel asks its peers whether they live. */
static void grow_up(struct pair *pair) {
  unsigned i;

  if (pair->young_ms == 0 || pair->young_ms > now_ms(pair))
    return;
  pair->young_ms = 0;
  for (i = 0; i < pair->flow_count; i++)
    relay__stream_keep_alive(pair->streams[i]);
}

static void schedule(struct pair *pair) {
  uint64_t due = relay__pair_silence_due(pair);
  unsigned i;

  for (i = 0; i < pair->flow_count; i++) {
    uint64_t wait = relay__flow_wait_ms(&pair->flows[i]);

    if (wait != 0)
      sooner(&due, now_ms(pair) + wait);
  }
  if (pair->held)
    sooner(&due, now_ms(pair) + pair->look_ms);
  if (pair->young_ms != 0)
    sooner(&due, pair->young_ms);
  if (pair->deaf_ms != 0)
    sooner(&due, pair->deaf_ms);
  arm(pair, due);
}

/* A stream has died: what came before is delivered, then the reset. Returns
   whether to go on waiting for that. */
static bool hold_reset(struct pair *pair) {
  size_t held = held_bytes(pair);

  if (!pair->held) {
    pair->held = true;
    pair->held_length = SIZE_MAX;
    pair->look_ms = HELD_LOOK_MIN_MS;
  }
  if (held < pair->held_length) {
    pair->held_length = held;
    pair->progress_ms = now_ms(pair);
  }
  if (every_flow(pair, relay__flow_done) && held == 0)
    return false;
  if (pair->active_ms > pair->progress_ms)
    pair->progress_ms = pair->active_ms;
  return now_ms(pair) - pair->progress_ms < HELD_SILENCE_MS;
}

/* ---- the one path ----------------------------------------------------- */

static int watch(struct pair *pair, unsigned index) {
  struct stream *stream = pair->streams[index];
  int events = 0;
  unsigned i;

  for (i = 0; i < pair->flow_count; i++) {
    if (pair->flows[i].source == stream)
      events |= relay__flow_source_events(&pair->flows[i]);
    if (pair->flows[i].sink == stream)
      events |= relay__flow_sink_events(&pair->flows[i]);
  }
  return relay__stream_watch(stream, events);
}

static void update(struct pair *pair) {
  int err = flow_error(pair);
  unsigned i;

  if (err == 0 && every_flow(pair, is_shut)) {
    finish(pair, 0);
    return;
  }
  if (err == 0 &&
      (first_reset(pair) != NULL || every_flow(pair, relay__flow_done)) &&
      !hold_reset(pair))
    err = cut_reason(pair);
  for (i = 0; err == 0 && i < pair->flow_count; i++)
    err = watch(pair, i);
  if (err != 0)
    finish(pair, err);
  else
    schedule(pair);
}

static void pump(struct pair *pair, const struct stream *stream, int events) {
  unsigned shut = count_shut(pair);
  size_t moved = 0;
  unsigned i;

  for (i = 0; i < pair->flow_count; i++) {
    struct flow *flow = &pair->flows[i];
    bool readable = flow->source == stream && (events & UV_READABLE) != 0;
    bool writable = flow->sink == stream && (events & UV_WRITABLE) != 0;

    if (readable || writable)
      moved += relay__flow_pump(flow, readable);
  }
  /* What was just found dead is not watched any more: both flows must see. */
  if (first_reset(pair) != NULL)
    for (i = 0; i < pair->flow_count; i++)
      moved += relay__flow_pump(&pair->flows[i], false);
  note_moved(pair, moved, shut);
}

static void on_stream_event(struct stream *stream, int events) {
  struct pair *pair = stream->owner;

  pump(pair, stream, events);
  update(pair);
}

static void on_deadline(struct deadline *deadline) {
  struct pair *pair = container_of(deadline, struct pair, deadline);
  unsigned shut = count_shut(pair);
  size_t moved = 0;
  unsigned i;

  grow_up(pair);
  if (pair->held && pair->look_ms < HELD_LOOK_MAX_MS)
    pair->look_ms *= 2;
  for (i = 0; i < pair->flow_count; i++)
    moved += relay__flow_pump(&pair->flows[i], false);
  note_moved(pair, moved, shut);
  if (relay__pair_silence_due(pair) <= now_ms(pair) ||
      relay__pair_has_vanished(pair))
    finish(pair, UV_ETIMEDOUT);
  else
    update(pair);
}

/* ---- from outside ----------------------------------------------------- */

static void set_rates(struct pair *pair) {
  relay__flow_set_rate(&pair->flows[0], pair->limits.rate_in);
  if (pair->flow_count > 1)
    relay__flow_set_rate(&pair->flows[1], pair->limits.rate_out);
}

void relay__pair_init(struct pair *pair, struct stream *visitor,
                      struct stream *agent, const struct pair_limits *limits,
                      pair_end_fn on_end, void *owner) {
  struct rate_share *share = limits->share;

  pair->streams[0] = visitor;
  pair->streams[1] = agent;
  pair->flow_count = agent != NULL ? 2 : 1;
  relay__flow_init(&pair->flows[0], visitor, agent != NULL ? agent : visitor);
  if (agent != NULL)
    relay__flow_init(&pair->flows[1], agent, visitor);
  pair->limits = *limits;
  pair->on_end = on_end;
  pair->owner = owner;
  if (share == NULL)
    return;
  share->holders++;
  pair->flows[0].shared_rate = &share->in;
  pair->flows[1].shared_rate = &share->out;
}

void relay__pair_run(struct pair *pair, struct plane *plane) {
  int err = 0;
  unsigned i;

  pair->plane = plane;
  pair->active_ms = now_ms(pair);
  pair->young_ms = pair->active_ms + YOUNG_MS;
  relay__deadline_init(&pair->deadline, plane, on_deadline);
  for (i = 0; err == 0 && i < pair->flow_count; i++) {
    relay__stream_own(pair->streams[i], on_stream_event, pair);
    err = relay__stream_attach(pair->streams[i]);
  }
  if (err != 0) {
    finish(pair, err);
    return;
  }
  set_rates(pair);
  /* One that died before is not watched: the deadline starts this pair. */
  if (first_reset(pair) != NULL)
    relay__deadline_set(&pair->deadline, 0);
  else
    update(pair);
}

int relay__pair_start(struct pair **out, struct plane *plane,
                      struct stream *visitor, struct stream *agent,
                      const struct pair_limits *limits, pair_end_fn on_end,
                      void *owner) {
  struct pair *pair = calloc(1, sizeof(*pair));

  if (pair == NULL) {
    relay__stream_close(visitor);
    relay__stream_close(agent);
    return UV_ENOMEM;
  }
  relay__pair_init(pair, visitor, agent, limits, on_end, owner);
  relay__pair_run(pair, plane);
  *out = pair;
  return 0;
}

void relay__pair_close(struct pair *pair, int reason) {
  finish(pair, reason);
}

void relay__pair_limit(struct pair *pair, const struct pair_limits *limits) {
  struct rate_share *share = pair->limits.share;

  if (pair->ended)
    return;
  if (limits->idle_ms != pair->limits.idle_ms)
    pair->active_ms = now_ms(pair); /* it has all of its new time */
  pair->limits = *limits;
  pair->limits.share = share;
  set_rates(pair);
  relay__deadline_set(&pair->deadline, 0); /* look again under the new ones */
}

uint64_t relay__pair_bytes_in(const struct pair *pair) {
  return atomic_load_explicit(&pair->flows[0].bytes, memory_order_relaxed);
}

uint64_t relay__pair_bytes_out(const struct pair *pair) {
  const struct flow *out = &pair->flows[pair->flow_count - 1];

  return atomic_load_explicit(&out->bytes, memory_order_relaxed);
}
