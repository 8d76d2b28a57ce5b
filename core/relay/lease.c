/* SPDX-License-Identifier: MIT */
/*
 * Leases: public addresses held for agents. A lease is an object, not a
 * socket: it outlives a dropped control connection by the grace time, with its
 * listener open and its visitors parked, and whoever comes back with its
 * ticket has it again.
 */
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"

#define PORT_MAX 65535
#define PORT_UNPRIVILEGED 1024

static bool is_leased(const struct relay *relay, unsigned port) {
  return (relay->ports[port / 8] & 1u << port % 8) != 0;
}

static void mark_leased(struct relay *relay, unsigned port, bool leased) {
  if (leased)
    relay->ports[port / 8] |= (uint8_t)(1u << port % 8);
  else
    relay->ports[port / 8] &= (uint8_t) ~(1u << port % 8);
}

/* ---- the end ---------------------------------------------------------- */

static void on_grace_closed(struct deadline *deadline) {
  free(container_of(deadline, struct lease, grace));
}

static void on_listener_closed(struct listener *listener) {
  struct lease *lease = container_of(listener, struct lease, listener);

  relay__deadline_close(&lease->grace, on_grace_closed);
}

static void on_listener_stopped(struct listener *listener) {
  struct lease *lease = container_of(listener, struct lease, listener);

  if (lease->ended)
    relay__deadline_close(&lease->grace, on_grace_closed);
  lease->stopped = true;
}

void relay__lease_stop_listening(struct lease *lease) {
  if (!lease->listening)
    return;
  lease->listening = false;
  mark_leased(lease->relay, lease->port, false);
  relay__listener_close(&lease->listener, on_listener_stopped);
}

void relay__lease_end(struct lease *lease, int reason, bool spare_pairs) {
  struct relay *relay = lease->relay;

  if (lease->ended)
    return;
  lease->ended = true;
  link_remove(&lease->link);
  relay->stats.leases--;
  while (!link_is_empty(&lease->visitors)) {
    struct visitor *visitor =
        container_of(lease->visitors.next, struct visitor, lease_link);

    if (spare_pairs && visitor->phase == VISITOR_JOINED) {
      link_remove(&visitor->lease_link);
      visitor->lease = NULL;
    } else {
      relay__visitor_end(visitor, reason);
    }
  }
  relay__log(&relay->logger, RELAY_LOG_INFO, "address released",
             LOG_NUMBER("port", lease->port),
             LOG_TEXT("reason", relay_error_name(reason)));
  relay__deadline_clear(&lease->grace);
  if (lease->listening) {
    lease->listening = false;
    mark_leased(relay, lease->port, false);
    relay__listener_close(&lease->listener, on_listener_closed);
  } else if (lease->stopped) {
    relay__deadline_close(&lease->grace, on_grace_closed);
  }
}

static void on_grace_over(struct deadline *deadline) {
  relay__lease_end(container_of(deadline, struct lease, grace), RELAY_EGONE,
                   false);
}

/* ---- opening ---------------------------------------------------------- */

static bool admit_visitor(struct listener *listener) {
  struct lease *lease = listener->owner;

  if (relay__admit_visitor(lease->relay))
    return true;
  relay__note_pause(lease->relay);
  return false;
}

static int bind_port(struct lease *lease, unsigned port) {
  struct relay *relay = lease->relay;
  struct sockaddr_storage address = relay->listener.address;
  int err;

  relay__address_set_port((struct sockaddr *)&address, port);
  err = relay__listener_open(&lease->listener, &relay->plane,
                             (struct sockaddr *)&address, admit_visitor,
                             relay__visitor_start, lease);
  if (err == 0)
    lease->port =
        relay__address_port((struct sockaddr *)&lease->listener.address);
  return err;
}

static int bind_any_port(struct lease *lease) {
  struct relay *relay = lease->relay;
  unsigned lo = relay->options.port_lo;
  unsigned hi = relay->options.port_hi;
  unsigned port = relay->last_port;
  unsigned tries;
  int err = UV_EADDRINUSE;

  if (lo == 0) {
    lo = relay_port(relay) < PORT_MAX ? relay_port(relay) + 1
                                      : PORT_UNPRIVILEGED;
    hi = PORT_MAX;
  }
  for (tries = hi - lo + 1; tries > 0; tries--) {
    port = port < lo || port >= hi ? lo : port + 1;
    if (is_leased(relay, port))
      continue;
    err = bind_port(lease, port);
    if (err != UV_EADDRINUSE && err != UV_EACCES)
      break;
  }
  if (err == 0)
    relay->last_port = lease->port;
  return err == UV_EADDRINUSE || err == UV_EACCES ? RELAY_ENO_PORT : err;
}

static void choose_host(struct lease *lease, const struct session *session,
                        const char *host) {
  struct relay *relay = lease->relay;
  const char *chosen = host != NULL          ? host
                       : relay->advertise[0] ? relay->advertise
                       : session->dialed[0]  ? session->dialed
                                             : relay->host;
  size_t length = strlen(chosen);

  if (length > HOST_MAX_LENGTH)
    length = HOST_MAX_LENGTH;
  memcpy(lease->host, chosen, length);
}

/* Binds last, when nothing else can fail: "address given" means that visitors
   can connect. */
static int open_lease(struct session *session, unsigned port,
                      const char *host) {
  struct relay *relay = session->relay;
  struct lease *lease;
  int err;

  if (port != 0 && is_leased(relay, port))
    return UV_EADDRINUSE;
  lease = calloc(1, sizeof(*lease));
  if (lease == NULL)
    return UV_ENOMEM;
  lease->relay = relay;
  err = relay__id_make(lease->ticket);
  if (err == 0)
    err = port != 0 ? bind_port(lease, port) : bind_any_port(lease);
  if (err != 0) {
    free(lease);
    return err;
  }
  lease->listening = true;
  mark_leased(relay, lease->port, true);
  choose_host(lease, session, host);
  memcpy(lease->owner, session->from_host, sizeof(lease->owner));
  relay__deadline_init(&lease->grace, &relay->plane, on_grace_over);
  link_init(&lease->visitors);
  link_append(&relay->leases, &lease->link);
  relay->stats.leases++;
  lease->session = session;
  session->lease = lease;
  return 0;
}

int relay__lease_open(struct session *session, unsigned port,
                      const char *host) {
  return open_lease(session, port, host);
}

int relay__lease_open_any(struct session *session, const char *host) {
  return open_lease(session, 0, host);
}

/* ---- holding ---------------------------------------------------------- */

struct lease *relay__lease_find(struct relay *relay, const char *ticket) {
  struct lease *found = NULL;

  if (ticket[0] == '\0')
    return NULL;
  link_each(&relay->leases, link, next) {
    struct lease *lease = container_of(link, struct lease, link);

    if (relay__id_equals(lease->ticket, ticket) ||
        relay__id_equals(lease->previous, ticket))
      found = lease;
  }
  return found;
}

unsigned relay__lease_count(const struct relay *relay, const char *owner) {
  unsigned count = 0;

  link_each(&relay->leases, link, next) {
    struct lease *lease = container_of(link, struct lease, link);

    if (strcmp(lease->owner, owner) == 0)
      count++;
  }
  return count;
}

void relay__lease_attach(struct lease *lease, struct session *session) {
  char ticket[WIRE_ID_LENGTH + 1];

  if (lease->session != NULL) {
    struct session *old = lease->session;

    old->lease = NULL;
    lease->session = NULL;
    relay__session_end(old, RELAY_EREPLACED, NULL);
  }
  /* Without a new ticket the old one goes on: the address matters more. */
  if (relay__id_make(ticket) == 0) {
    memcpy(lease->previous, session->resume, sizeof(lease->previous));
    memcpy(lease->ticket, ticket, sizeof(lease->ticket));
  }
  relay__deadline_clear(&lease->grace);
  lease->session = session;
  session->lease = lease;
}

/* What is called for each visitor may end it, and by way of a hook any other:
   so each is taken off one list and put on the other. */
void relay__lease_each_visitor(struct lease *lease,
                               void (*call)(struct visitor *visitor)) {
  struct link seen;

  link_init(&seen);
  while (!link_is_empty(&lease->visitors)) {
    struct visitor *visitor =
        container_of(lease->visitors.next, struct visitor, lease_link);

    link_remove(&visitor->lease_link);
    link_append(&seen, &visitor->lease_link);
    call(visitor);
    if (lease->ended)
      break;
  }
  while (!link_is_empty(&seen)) {
    struct link *link = seen.next;

    link_remove(link);
    link_append(&lease->visitors, link);
  }
}

void relay__lease_detach(struct lease *lease) {
  struct relay *relay = lease->relay;

  lease->session = NULL;
  if (relay->options.grace_ms == 0 || relay->draining) {
    relay__lease_end(lease, RELAY_EGONE, relay->draining);
    return;
  }
  relay__lease_each_visitor(lease, relay__visitor_park);
  if (!lease->ended)
    relay__deadline_set(&lease->grace, relay->options.grace_ms);
}
