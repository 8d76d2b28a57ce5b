/* SPDX-License-Identifier: MIT */
/*
 * One direction of bytes. See flow.h for the phases.
 *
 * The law: the source is read only while the hold is empty, so at most one
 * hold of bytes is ever ours; the FIN is passed on in settle() and nowhere
 * else; a hold whose sink has died is destroyed with what it holds.
 */
#include "flow/flow.h"

#include <unistd.h>

#include "net/plane.h"

/* At most this much per call: the source may never go idle. */
#define FAIR_BYTES (256 * 1024)
/* Read at once where the room of the sink is not known. */
#define STEP_BYTES (64 * 1024)
/* A read shorter than this has probably emptied the source: poll will tell,
   and one system call that finds nothing is saved. Where no more is moved at a
   time, it is by copy. */
#define SHORT_READ_BYTES (16 * 1024)
/* Read by copy where an urgent byte stops splice; fits any empty pipe. */
#define URGENT_READ_BYTES 4096

void relay__flow_init(struct flow *flow, struct stream *source,
                      struct stream *sink) {
  *flow = (struct flow){.source = source, .sink = sink, .phase = FLOW_OPEN};
  flow->copying = source->tls != NULL || sink->tls != NULL;
}

/* ---- rate ------------------------------------------------------------- */

static void refill(struct flow *flow) {
  uint64_t now = uv_now(flow->source->plane->loop);

  relay__rate_refill(&flow->rate, now);
  if (flow->shared_rate != NULL)
    relay__rate_refill(flow->shared_rate, now);
}

void relay__flow_set_rate(struct flow *flow, uint64_t rate) {
  relay__rate_set(&flow->rate, rate, uv_now(flow->source->plane->loop));
}

static bool is_throttled(const struct flow *flow) {
  return relay__rate_is_spent(&flow->rate) ||
         relay__rate_is_spent(flow->shared_rate);
}

static bool is_holding(const struct flow *flow) {
  return flow->hold != NULL && flow->hold->length != 0;
}

uint64_t relay__flow_wait_ms(const struct flow *flow) {
  uint64_t own = relay__rate_wait_ms(&flow->rate);
  uint64_t shared = relay__rate_wait_ms(flow->shared_rate);

  if (flow->phase != FLOW_OPEN || is_holding(flow))
    return 0;
  return own > shared ? own : shared;
}

/* ---- the source ------------------------------------------------------- */

static void drop_hold(struct flow *flow) {
  if (flow->hold != NULL)
    relay__hold_return(flow->source->plane, flow->hold);
  flow->hold = NULL;
}

/* A small read costs less by copy, which also tells an end or an urgent byte
   at once; a large one by splice. */
static bool copies_small(const struct flow *flow) {
  return flow->source->plane->mode == RELAY_MODE_AUTO && !flow->wide;
}

static bool wants_pipe(const struct flow *flow) {
  return !flow->copying && !copies_small(flow) &&
         flow->source->plane->mode != RELAY_MODE_COPY;
}

/* An empty hold of the kind that is wanted, or a buffer. */
static bool take_hold(struct flow *flow) {
  struct plane *plane = flow->source->plane;
  bool pipe = wants_pipe(flow);

  if (flow->hold != NULL && (flow->hold->is_pipe || !pipe))
    return true;
  drop_hold(flow);
  if (pipe)
    flow->hold = relay__hold_pipe(plane);
  if (flow->hold == NULL)
    flow->hold = relay__hold_buffer(plane);
  if (flow->hold == NULL)
    flow->error = UV_ENOMEM;
  return flow->hold != NULL;
}

/* An urgent byte stops splice, which then tells EAGAIN, or an end or an error
   that lies behind that byte [Linux]. One read by copy tells the truth. */
static ssize_t read_past_urgent(struct flow *flow) {
  char bytes[URGENT_READ_BYTES];
  ssize_t count = relay__stream_recv(flow->source, bytes, sizeof(bytes));

  if (count > 0 && write(flow->hold->pipe_write, bytes, (size_t)count) != count)
    flow->error = UV_EIO; /* an empty pipe takes a page, always */
  if (count == UV_EAGAIN && flow->source->reset)
    return flow->source->error;
  return count;
}

static ssize_t read_source(struct flow *flow, size_t size, bool readable) {
  struct hold *hold = flow->hold;
  ssize_t count;

  if (!hold->is_pipe) {
    hold->start = 0;
    return relay__stream_recv(flow->source, hold->bytes, size);
  }
  count = relay__stream_splice_in(flow->source, hold->pipe_write, size);
  if (count > 0 || count == UV_EINVAL ||
      (count == UV_EAGAIN && !readable && !flow->source->reset))
    return count;
  return read_past_urgent(flow);
}

/* Whole segments: of a large read the rest would leave as a small one of its
   own, and cost the sink's way almost as much. */
static size_t whole_segments(const struct flow *flow, size_t size) {
  size_t whole;

  if (size > flow->hold->capacity)
    size = flow->hold->capacity;
  whole = flow->segment != 0 ? size - size % flow->segment : 0;
  return whole >= STEP_BYTES ? whole : size;
}

/*
 * How much to read. What the sink may not take stays in the hold, so more than
 * STEP_BYTES are read only into a sink that has room for the rest: a direction
 * that stalls then keeps the sink's unsent bytes and one step, not a whole
 * hold. Asking for the room costs a system call, which a flow of small reads
 * does not make.
 */
static size_t choose_size(const struct flow *flow) {
  size_t size = STEP_BYTES;

  if (!flow->hold->is_pipe)
    size = flow->copying || !copies_small(flow) ? flow->hold->capacity
                                                : SHORT_READ_BYTES;
  else if (flow->bulk)
    size = whole_segments(flow, size + relay__stream_room(flow->sink));
  size = relay__rate_cap(&flow->rate, size);
  return relay__rate_cap(flow->shared_rate, size);
}

static void note_bulk(struct flow *flow, bool bulk) {
  if (bulk && !flow->bulk)
    flow->segment = relay__stream_segment(flow->sink);
  flow->bulk = bulk;
}

/* Fills the empty hold. False when there is nothing to go on with now. */
static bool fill(struct flow *flow, bool readable, size_t *filled) {
  size_t size;
  ssize_t count;

  if (is_throttled(flow) || !take_hold(flow))
    return false;
  size = choose_size(flow);
  count = read_source(flow, size, readable);
  if (count == UV_EINVAL && flow->hold->is_pipe) {
    flow->copying = true;
    drop_hold(flow);
    return fill(flow, readable, filled);
  }
  if (count > 0) {
    flow->hold->length = (size_t)count;
    flow->wide = flow->wide || count >= SHORT_READ_BYTES;
    note_bulk(flow, flow->hold->is_pipe && count >= STEP_BYTES);
    *filled = (size_t)count;
    relay__rate_take(&flow->rate, (uint64_t)count);
    relay__rate_take(flow->shared_rate, (uint64_t)count);
  } else if (count == 0) {
    flow->phase = FLOW_DRAINING;
  } else if (count != UV_EAGAIN) {
    flow->phase = FLOW_LOST;
  }
  return count > 0;
}

/* ---- the sink --------------------------------------------------------- */

/* Gives the sink what is held. A short write means that it is full: poll tells
   when it is not, sooner than another try would. */
static size_t drain(struct flow *flow) {
  struct hold *hold = flow->hold;
  ssize_t count;

  if (hold->is_pipe)
    count = relay__stream_splice_out(flow->sink, hold->pipe_read, hold->length);
  else
    count =
        relay__stream_send(flow->sink, hold->bytes + hold->start, hold->length);
  if (count < 0 && count != UV_EAGAIN) {
    flow->phase = FLOW_CUT;
    return 0;
  }
  if (count < 0)
    count = 0;
  hold->start += (size_t)count;
  hold->length -= (size_t)count;
  flow->blocked = hold->length != 0;
  atomic_store_explicit(
      &flow->bytes,
      atomic_load_explicit(&flow->bytes, memory_order_relaxed) +
          (uint64_t)count,
      memory_order_relaxed);
  return (size_t)count;
}

/* ---- both ------------------------------------------------------------- */

/* TLS may have something to send before it. */
static void pass_fin(struct flow *flow) {
  int err = relay__stream_shutdown(flow->sink);

  flow->blocked = err == UV_EAGAIN;
  if (err != UV_EAGAIN)
    flow->phase = err == 0 ? FLOW_SHUT : FLOW_CUT;
}

/* The hold is empty, or its bytes have nowhere to go: what follows. */
static void settle(struct flow *flow) {
  if (flow->phase == FLOW_CUT || !is_holding(flow)) {
    drop_hold(flow);
    flow->blocked = false;
  } else {
    return;
  }
  if (flow->phase == FLOW_DRAINING)
    pass_fin(flow);
  else if (flow->phase == FLOW_LOST)
    flow->phase = FLOW_CUT;
}

size_t relay__flow_pump(struct flow *flow, bool readable) {
  bool was_full = is_holding(flow);
  size_t moved = 0;
  size_t filled = 0;

  if (relay__flow_done(flow))
    return 0;
  if (flow->sink->reset && flow->sink != flow->source)
    flow->phase = FLOW_CUT;
  refill(flow);
  while (flow->phase != FLOW_CUT) {
    if (is_holding(flow)) {
      moved += drain(flow);
      if (is_holding(flow))
        break;
      if (filled != 0 && (filled < SHORT_READ_BYTES || moved >= FAIR_BYTES) &&
          !flow->source->reset)
        break;
      if (moved >= FAIR_BYTES)
        break;
    }
    if (flow->phase != FLOW_OPEN || !fill(flow, readable, &filled))
      break;
    readable = false;
  }
  settle(flow);
  if (moved != 0 && !is_holding(flow)) /* the next time will be as this was */
    flow->wide = was_full || moved >= SHORT_READ_BYTES;
  return moved;
}

int relay__flow_source_events(const struct flow *flow) {
  return flow->phase == FLOW_OPEN && !is_holding(flow) && !is_throttled(flow)
             ? UV_READABLE
             : 0;
}

int relay__flow_sink_events(const struct flow *flow) {
  /* A dead source is read without being watched: its sink sets the pace. */
  if (flow->blocked ||
      (flow->phase == FLOW_OPEN && flow->source->reset && !is_throttled(flow)))
    return UV_WRITABLE;
  return 0;
}

bool relay__flow_done(const struct flow *flow) {
  return flow->phase == FLOW_SHUT || flow->phase == FLOW_CUT;
}

void relay__flow_close(struct flow *flow) {
  drop_hold(flow);
  flow->phase = FLOW_CUT;
}
