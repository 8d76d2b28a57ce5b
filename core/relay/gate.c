/* SPDX-License-Identifier: MIT */
/*
 * Gates: public ports and the visitors who came through them. A gate is open
 * as long as a lease is on it or policy has declared it; it belongs to one
 * agent, or is shared by several.
 */
#include <stdlib.h>

#include "relay/private.h"

#define PORT_MAX 65535
#define PORT_UNPRIVILEGED 1024

static bool is_open_here(const struct relay *relay, unsigned port) {
  return (relay->ports[port / 8] & 1u << port % 8) != 0;
}

static void mark_open(struct relay *relay, unsigned port, bool open) {
  if (open)
    relay->ports[port / 8] |= (uint8_t)(1u << port % 8);
  else
    relay->ports[port / 8] &= (uint8_t) ~(1u << port % 8);
}

/* ---- the end ---------------------------------------------------------- */

static void on_reaper_closed(struct deadline *deadline) {
  free(container_of(deadline, struct gate, reaper));
}

static void on_listener_closed(struct listener *listener) {
  struct gate *gate = container_of(listener, struct gate, listener);

  gate->closed = true;
  if (gate->ended)
    relay__deadline_close(&gate->reaper, on_reaper_closed);
}

void relay__gate_stop_listening(struct gate *gate) {
  if (!gate->listening)
    return;
  gate->listening = false;
  mark_open(gate->relay, gate->port, false);
  relay__listener_close(&gate->listener, on_listener_closed);
}

void relay__gate_end(struct gate *gate, int reason, bool spare_pairs) {
  if (gate->ended)
    return;
  gate->ended = true;
  link_remove(&gate->link);
  while (!link_is_empty(&gate->visitors)) {
    struct visitor *visitor =
        container_of(gate->visitors.next, struct visitor, gate_link);

    if (spare_pairs && visitor->phase == VISITOR_JOINED) {
      link_remove(&visitor->gate_link);
      visitor->gate = NULL;
    } else {
      relay__visitor_end(visitor, reason);
    }
  }
  relay__log(&gate->relay->logger, RELAY_LOG_INFO, "address released",
             LOG_NUMBER("port", gate->port),
             LOG_TEXT("reason", relay_error_name(reason)));
  if (gate->closed) /* freed from the loop, never under a caller */
    relay__deadline_close(&gate->reaper, on_reaper_closed);
  else
    relay__gate_stop_listening(gate);
}

/* ---- opening ---------------------------------------------------------- */

static bool admit_visitor(struct listener *listener) {
  struct gate *gate = listener->owner;

  if (relay__admit_visitor(gate->relay))
    return true;
  relay__note_pause(gate->relay);
  return false;
}

static int bind_port(struct gate *gate, const char *host, unsigned port) {
  struct relay *relay = gate->relay;
  struct sockaddr_storage address = relay->listener.address;
  int err = 0;

  if (host != NULL)
    err = relay__address_parse_host(host, port, &address);
  relay__address_set_port((struct sockaddr *)&address, port);
  if (err == 0)
    err = relay__listener_open(&gate->listener, &relay->plane,
                               (struct sockaddr *)&address, admit_visitor,
                               relay__visitor_start, gate);
  if (err == 0)
    gate->port =
        relay__address_port((struct sockaddr *)&gate->listener.address);
  return err;
}

static int bind_in_range(struct gate *gate, unsigned lo, unsigned hi) {
  struct relay *relay = gate->relay;
  unsigned port = relay->last_port;
  unsigned tries;
  int err = UV_EADDRINUSE;

  for (tries = hi - lo + 1; tries > 0; tries--) {
    port = port < lo || port >= hi ? lo : port + 1;
    if (is_open_here(relay, port))
      continue;
    err = bind_port(gate, NULL, port);
    if (err != UV_EADDRINUSE && err != UV_EACCES)
      break;
  }
  if (err == 0)
    relay->last_port = gate->port;
  return err == UV_EADDRINUSE || err == UV_EACCES ? RELAY_ENO_PORT : err;
}

static int bind_any_port(struct gate *gate, const struct token *token) {
  struct relay *relay = gate->relay;
  unsigned lo = relay->options.port_lo;
  unsigned hi = relay->options.port_hi;
  int err = RELAY_ENO_PORT;

  if (token != NULL && token->ports_count != 0) {
    for (size_t i = 0; i < token->ports_count && err == RELAY_ENO_PORT; i++)
      err = bind_in_range(gate, token->ports[i].lo, token->ports[i].hi);
    return err;
  }
  if (lo == 0) {
    lo = relay_port(relay) < PORT_MAX ? relay_port(relay) + 1
                                      : PORT_UNPRIVILEGED;
    hi = PORT_MAX;
  }
  return bind_in_range(gate, lo, hi);
}

/* Binds last, when nothing else can fail: "address given" means that visitors
   can connect. */
int relay__gate_open(struct relay *relay, const char *host, unsigned port,
                     const struct token *token, struct gate **out) {
  struct gate *gate;
  int err;

  if (port != 0 && is_open_here(relay, port))
    return UV_EADDRINUSE;
  gate = calloc(1, sizeof(*gate));
  if (gate == NULL)
    return UV_ENOMEM;
  gate->relay = relay;
  err = port != 0 ? bind_port(gate, host, port) : bind_any_port(gate, token);
  if (err != 0) {
    free(gate);
    return err;
  }
  relay__deadline_init(&gate->reaper, &relay->plane, NULL);
  gate->listening = true;
  mark_open(relay, gate->port, true);
  link_init(&gate->leases);
  link_init(&gate->visitors);
  link_append(&relay->gates, &gate->link);
  *out = gate;
  return 0;
}

struct gate *relay__gate_find(struct relay *relay, unsigned port) {
  link_each(&relay->gates, link, next) {
    struct gate *gate = container_of(link, struct gate, link);

    if (gate->port == port && gate->listening)
      return gate;
  }
  return NULL;
}

/* ---- its visitors and agents ------------------------------------------ */

void relay__gate_each_visitor(struct gate *gate, visitor_call_fn call,
                              void *subject) {
  unsigned count = gate->visitor_count;

  /* What is called may end this visitor, and by way of a hook any other: so
     the list is turned round, one at a time. Some may be called twice then. */
  while (count-- > 0 && !link_is_empty(&gate->visitors)) {
    struct visitor *visitor =
        container_of(gate->visitors.next, struct visitor, gate_link);

    link_remove(&visitor->gate_link);
    link_append(&gate->visitors, &visitor->gate_link);
    call(visitor, subject);
  }
}

unsigned relay__gate_capacity(const struct gate *gate) {
  unsigned most = gate->relay->options.max_visitors;
  unsigned all = 0;

  if (link_is_empty(&gate->leases))
    return most;
  link_each(&gate->leases, link, next) {
    unsigned own =
        relay__lease_capacity(container_of(link, struct lease, gate_link));

    if (own == 0 || own >= most - all)
      return most;
    all += own;
  }
  return all;
}

static bool is_full(const struct lease *lease) {
  unsigned capacity = relay__lease_capacity(lease);

  return capacity != 0 && lease->conns >= capacity;
}

/* The agent chosen if it is there, else the one with the fewest visitors. */
struct lease *relay__gate_pick(struct gate *gate, uint64_t chosen) {
  struct lease *best = NULL;

  link_each(&gate->leases, link, next) {
    struct lease *lease = container_of(link, struct lease, gate_link);

    if (lease->session == NULL || is_full(lease))
      continue;
    if (lease->session->number == chosen)
      return lease;
    if (best == NULL || lease->conns < best->conns)
      best = lease;
  }
  return best;
}
