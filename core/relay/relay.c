/* SPDX-License-Identifier: MIT */
/*
 * The relay as its host sees it: its life, and admission.
 */
#include <limits.h>
#include <stdlib.h>

#include "relay/private.h"

/* Descriptors kept for connections to the agent port: this share of all, or
   max_unproven if that is less. */
#define AGENT_DESCRIPTOR_SHARE 8
/* The agent port, an agent, its gate, a visitor and its data connection. With
   fewer nobody is ever served, and who waits at a port that is not looked at
   keeps no loop running. */
#define DESCRIPTORS_MIN 5
#define RESUME_MS 10
#define PAUSE_LOG_MS 1000

uint64_t relay__now_ms(const struct relay *relay) {
  return uv_now(relay->plane.loop);
}

/* ---- admission -------------------------------------------------------- */

bool relay__admit_visitor(struct relay *relay) {
  int kept = relay->plane.fds.limit / AGENT_DESCRIPTOR_SHARE;

  if (kept > (int)relay->options.max_unproven)
    kept = (int)relay->options.max_unproven;
  if (kept < (int)relay->stats.unproven)
    kept = 0; /* they are using what is kept for them */
  else
    kept -= (int)relay->stats.unproven;
  return relay__plane_has_descriptors(&relay->plane, kept + 2);
}

void relay__note_pause(struct relay *relay) {
  uint64_t now = relay__now_ms(relay);

  relay->gates_paused++;
  if (now - relay->paused_logged_ms < PAUSE_LOG_MS &&
      relay->paused_logged_ms != 0)
    return;
  relay->paused_logged_ms = now;
  relay__log(&relay->logger, RELAY_LOG_WARN,
             "descriptors are short, visitors wait",
             LOG_NUMBER("used", relay->plane.fds.used),
             LOG_NUMBER("reserved", relay->plane.fds.reserved),
             LOG_NUMBER("limit", relay->plane.fds.limit));
}

static void on_short(struct plane *plane, int error) {
  struct relay *relay = plane->owner;
  uint64_t now = relay__now_ms(relay);

  if (now - relay->short_logged_ms < PAUSE_LOG_MS &&
      relay->short_logged_ms != 0)
    return;
  relay->short_logged_ms = now;
  relay__log(&relay->logger, RELAY_LOG_WARN, "cannot accept, connections wait",
             LOG_TEXT("reason", relay_strerror(error)),
             LOG_NUMBER("used", plane->fds.used));
}

static void on_resume(struct deadline *deadline) {
  struct relay *relay = container_of(deadline, struct relay, resume);

  if (relay->listener.fd >= 0 && relay->listener.paused && !relay->draining)
    relay__listener_resume(&relay->listener);
  if (relay->gates_paused == 0 || !relay__admit_visitor(relay))
    return;
  relay->gates_paused = 0;
  link_each(&relay->gates, link, next) {
    struct gate *gate = container_of(link, struct gate, link);

    if (gate->listening && gate->listener.paused)
      relay__listener_resume(&gate->listener);
  }
}

/* Those that paused are looked after soon, once for many closings. */
static void on_descriptor(struct plane *plane) {
  struct relay *relay = plane->owner;

  if (relay->closing || (relay->gates_paused == 0 && !relay->listener.paused))
    return;
  if (!relay__deadline_is_set(&relay->resume))
    relay__deadline_set(&relay->resume, RESUME_MS);
}

/* ---- life ------------------------------------------------------------- */

static void on_plane_empty(struct plane *plane) {
  struct relay *relay = plane->owner;
  relay_close_fn on_close = relay->on_close;
  void *data = relay->close_data;

  if (!relay->closing)
    return;
  relay__trust_free(relay);
  relay__certificates_free(relay);
  relay__penalties_free(&relay->penalties);
  free(relay);
  if (on_close != NULL)
    on_close(data);
}

void relay__check_drained(struct relay *relay) {
  /* From the loop, never from within a call. */
  if (relay->draining && !relay->closing && relay->on_drained != NULL &&
      link_is_empty(&relay->visitors))
    relay__deadline_set(&relay->drain, 0);
}

static void end_visitors(struct relay *relay, int reason) {
  while (!link_is_empty(&relay->visitors))
    relay__visitor_end(container_of(relay->visitors.next, struct visitor, link),
                       reason);
}

static void on_drain(struct deadline *deadline) {
  struct relay *relay = container_of(deadline, struct relay, drain);
  relay_close_fn on_drained = relay->on_drained;

  relay->on_drained = NULL;
  end_visitors(relay, RELAY_EDRAINING);
  if (on_drained != NULL && !relay->closing)
    on_drained(relay->drained_data);
}

static void on_accept(struct listener *listener, struct stream *stream,
                      const struct sockaddr *from) {
  struct relay *relay = listener->owner;

  if (relay__networks_hold(&relay->proxy_from, from))
    relay__preface_start(relay, NULL, stream, from);
  else
    relay__handshake_start(relay, stream, from);
}

static int check_descriptors(struct relay *relay) {
  const struct descriptors *fds = &relay->plane.fds;
  int left = fds->limit - fds->used;

  if (left >= DESCRIPTORS_MIN)
    return 0;
  relay__log(&relay->logger, RELAY_LOG_ERROR, "too few descriptors",
             LOG_NUMBER("left", left), LOG_NUMBER("needed", DESCRIPTORS_MIN));
  return UV_EMFILE;
}

static int listen_for_agents(struct relay *relay) {
  struct sockaddr_storage address;
  int err = relay__listener_host(relay->options.listen_host,
                                 relay->options.port, &address);

  if (err == 0)
    err = relay__listener_open(&relay->listener, &relay->plane,
                               (struct sockaddr *)&address,
                               relay__handshake_admit, on_accept, relay);
  if (err != 0)
    return err;
  relay->open = true;
  relay__address_host((struct sockaddr *)&relay->listener.address, relay->host,
                      sizeof(relay->host));
  return 0;
}

static void set_penalties(struct relay *relay) {
  relay_options *options = &relay->options;
  bool on = options->penalties == RELAY_PENALTIES_ON ||
            (options->penalties == RELAY_PENALTIES_AUTO &&
             (options->tokens != NULL || options->tls_client_ca != NULL));
  unsigned share = options->max_unproven / 4;

  relay__penalties_init(&relay->penalties, on, options->penalty_ms,
                        options->penalty_half_life_ms);
  if (options->max_unproven_per_source == 0)
    options->max_unproven_per_source = !on ? UINT_MAX : share != 0 ? share : 1;
}

static void init_lists(struct relay *relay) {
  link_init(&relay->prefaces);
  link_init(&relay->handshakes);
  link_init(&relay->proven);
  link_init(&relay->refusals);
  link_init(&relay->sessions);
  link_init(&relay->gates);
  link_init(&relay->leases);
  link_init(&relay->visitors);
  relay__deadline_init(&relay->resume, &relay->plane, on_resume);
  relay__deadline_init(&relay->drain, &relay->plane, on_drain);
  relay__complaints_init(relay);
  relay__state_init(relay);
}

static int start_crew(struct relay *relay) {
  int err =
      relay__crew_init(&relay->crew, &relay->plane, relay->options.workers);

  if (err == 0)
    return 0;
  relay__log(&relay->logger, RELAY_LOG_ERROR, "cannot start workers",
             LOG_TEXT("reason", relay_strerror(err)));
  return RELAY_EWORKERS;
}

int relay_new(relay_t **out, struct uv_loop_s *loop,
              const relay_options *options) {
  struct relay *relay = calloc(1, sizeof(*relay));
  int err;

  if (relay == NULL)
    return UV_ENOMEM;
  relay->listener.fd = -1;
  relay->state_fd = -1;
  err = relay__options_take(relay, options);
  if (err != 0) {
    free(relay);
    return err;
  }
  err = relay__plane_init(&relay->plane, loop, relay->options.mode,
                          relay->options.max_fds);
  relay->plane.owner = relay;
  relay->plane.on_empty = on_plane_empty;
  relay->plane.on_descriptor = on_descriptor;
  relay->plane.on_short = on_short;
  relay->plane.rcvbuf_bytes = (int)relay->options.rcvbuf_bytes;
  relay->plane.keepalive =
      (struct keepalive){(int)relay->options.keepalive_idle_s,
                         (int)relay->options.keepalive_interval_s,
                         (int)relay->options.keepalive_count};
  set_penalties(relay);
  init_lists(relay);
  if (err == 0)
    err = start_crew(relay);
  if (err == 0)
    err = relay__policy_init(relay);
  else
    relay__deadline_init(&relay->tick, &relay->plane, NULL);
  if (err == 0)
    err = relay__trust_init(relay);
  else
    relay__deadline_init(&relay->tokens_due, &relay->plane, NULL);
  if (err == 0)
    err = relay__certificates_init(relay);
  if (err == 0)
    err = relay__state_open(relay);
  if (err == 0)
    err = check_descriptors(relay);
  if (err == 0)
    err = listen_for_agents(relay);
  if (err == 0)
    err = relay__state_restore(relay);
  if (err != 0)
    relay_close(relay, NULL, NULL);
  else
    *out = relay;
  return err;
}

unsigned relay_port(const relay_t *r) {
  return relay__address_port((const struct sockaddr *)&r->listener.address);
}

const char *relay_host(const relay_t *r) {
  return r->host;
}

static void stop_listening(struct relay *relay) {
  if (relay->listener.fd >= 0)
    relay__listener_close(&relay->listener, NULL);
  link_each(&relay->gates, link, next) {
    relay__gate_stop_listening(container_of(link, struct gate, link));
  }
  relay__prefaces_end(relay, NULL);
  while (!link_is_empty(&relay->handshakes))
    relay__handshake_end(
        container_of(relay->handshakes.next, struct handshake, link));
  while (!link_is_empty(&relay->refusals))
    relay__refusal_end(
        container_of(relay->refusals.next, struct refusal, link));
}

static void end_agents(struct relay *relay, int reason) {
  while (!link_is_empty(&relay->sessions))
    relay__session_end(container_of(relay->sessions.next, struct session, link),
                       reason, NULL);
}

/* Those that no agent has come for: none will any more. */
static void end_waiting(struct relay *relay, int reason) {
  struct visitor *waiting;

  do {
    waiting = NULL;
    link_each(&relay->visitors, link, next) {
      struct visitor *visitor = container_of(link, struct visitor, link);

      if (visitor->phase != VISITOR_JOINED)
        waiting = visitor;
    }
    if (waiting != NULL)
      relay__visitor_end(waiting, reason);
  } while (waiting != NULL);
}

void relay_drain(relay_t *r, uint64_t ms, relay_close_fn on_drained,
                 void *data) {
  if (r->closing)
    return;
  r->on_drained = on_drained;
  r->drained_data = data;
  if (!r->draining || relay__now_ms(r) + ms < r->drain_due_ms) {
    relay__deadline_set(&r->drain, ms);
    r->drain_due_ms = relay__now_ms(r) + ms;
  }
  if (!r->draining) {
    r->draining = true;
    relay__log(&r->logger, RELAY_LOG_INFO, "draining",
               LOG_NUMBER("pairs", r->stats.pairs), LOG_NUMBER("ms", ms));
    stop_listening(r);
    end_agents(r, RELAY_EDRAINING);
    end_waiting(r, RELAY_EDRAINING);
  }
  relay__check_drained(r);
}

void relay_close(relay_t *r, relay_close_fn on_close, void *data) {
  if (r->closing)
    return;
  r->closing = true;
  r->on_close = on_close;
  r->close_data = data;
  stop_listening(r);
  end_agents(r, RELAY_EDRAINING);
  while (!link_is_empty(&r->leases))
    relay__lease_end(container_of(r->leases.next, struct lease, link),
                     RELAY_EDRAINING, false);
  while (!link_is_empty(&r->gates))
    relay__gate_end(container_of(r->gates.next, struct gate, link),
                    RELAY_EDRAINING, false);
  end_visitors(r, RELAY_EDRAINING);
  relay__state_close(r);
  relay__deadline_close(&r->resume, NULL);
  relay__deadline_close(&r->drain, NULL);
  relay__deadline_close(&r->tick, NULL);
  relay__deadline_close(&r->tokens_due, NULL);
  relay__deadline_close(&r->complaints.due, NULL);
  relay__deadline_close(&r->state_due, NULL);
  relay__crew_close(&r->crew);
  relay__plane_close(&r->plane);
}
