/* SPDX-License-Identifier: MIT */
/*
 * Leases: public addresses held for agents. A lease is an agent's place at a
 * gate; it outlives a dropped control connection by the grace time, with the
 * gate open and its visitors parked, and whoever comes back with its ticket
 * has it again.
 */
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"

/* ---- the end ---------------------------------------------------------- */

static void free_lease(struct lease *lease) {
  if (lease != NULL)
    relay__rate_share_release(lease->share);
  free(lease);
}

static void on_grace_closed(struct deadline *deadline) {
  free_lease(container_of(deadline, struct lease, grace));
}

/* Spared pairs outlive the lease, not what it limits them to. */
static void end_limits(struct lease *lease) {
  uint64_t now = relay__now_ms(lease->relay);

  relay__rate_set(&lease->share->in, 0, now);
  relay__rate_set(&lease->share->out, 0, now);
}

struct ending {
  struct lease *lease;
  int reason;
  bool spare_pairs;
};

static void end_visitor(struct visitor *visitor, void *subject) {
  const struct ending *ending = subject;

  if (visitor->lease != ending->lease)
    return;
  relay__visitor_leave(visitor);
  if (visitor->phase != VISITOR_JOINED)
    relay__visitor_place(visitor, NULL); /* another agent, or it parks */
  else if (!ending->spare_pairs)
    relay__visitor_end(visitor, ending->reason);
}

void relay__lease_end(struct lease *lease, int reason, bool spare_pairs) {
  struct ending ending = {lease, reason, spare_pairs};
  struct gate *gate = lease->gate;

  if (lease->ended)
    return;
  lease->ended = true;
  relay__state_drop(lease);
  end_limits(lease);
  link_remove(&lease->link);
  link_remove(&lease->gate_link);
  lease->relay->stats.leases--;
  relay__deadline_close(&lease->grace, on_grace_closed);
  if (link_is_empty(&gate->leases) && !gate->declared) {
    /* The last one: nobody is left for those who wait. */
    link_each(&gate->visitors, link, next) {
      relay__visitor_leave(container_of(link, struct visitor, gate_link));
    }
    relay__gate_end(gate, reason, spare_pairs);
  } else {
    relay__gate_each_visitor(gate, end_visitor, &ending);
  }
}

static void on_grace_over(struct deadline *deadline) {
  relay__lease_end(container_of(deadline, struct lease, grace), RELAY_EGONE,
                   false);
}

/* ---- opening ---------------------------------------------------------- */

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

/* A gate of its own, at `host` (NULL: as the relay listens), or one that is
   there: declared, if it was `given` and not only wished for, or to be shared.
   `token` NULL: the relay's own ports. */
static int find_gate(struct relay *relay, const char *host, unsigned port,
                     const struct token *token, bool given, bool share,
                     struct gate **gate) {
  *gate = port != 0 ? relay__gate_find(relay, port) : NULL;
  if (*gate == NULL)
    return relay__gate_open(relay, host, port, token, gate);
  return ((*gate)->declared && given) || ((*gate)->shared && share)
             ? 0
             : UV_EADDRINUSE;
}

/* Nothing can fail any more. */
static void enter(struct lease *lease, struct gate *gate, bool share) {
  struct relay *relay = gate->relay;

  lease->relay = relay;
  lease->gate = gate;
  gate->shared = gate->shared || share;
  relay__deadline_init(&lease->grace, &relay->plane, on_grace_over);
  link_append(&relay->leases, &lease->link);
  link_append(&gate->leases, &lease->gate_link);
  relay->stats.leases++;
}

static struct lease *make_lease(void) {
  struct lease *lease = calloc(1, sizeof(*lease));

  if (lease != NULL)
    lease->share = relay__rate_share_new();
  if (lease == NULL || lease->share != NULL)
    return lease;
  free(lease);
  return NULL;
}

int relay__lease_open(struct session *session, unsigned port, bool given,
                      const char *host, bool share) {
  struct relay *relay = session->relay;
  struct lease *lease = make_lease();
  struct gate *gate;
  int err = UV_ENOMEM;

  if (lease != NULL)
    err = relay__id_make(lease->ticket);
  if (err == 0)
    err = find_gate(relay, NULL, port,
                    relay__trust_token(relay, session->token_id), given, share,
                    &gate);
  if (err != 0) {
    free_lease(lease);
    return err;
  }
  enter(lease, gate, share);
  choose_host(lease, session, host);
  memcpy(lease->owner, session->from_host, sizeof(lease->owner));
  memcpy(lease->token_id, session->token_text, sizeof(lease->token_id));
  memcpy(lease->name, session->name, sizeof(lease->name));
  lease->session = session;
  session->lease = lease;
  relay__state_keep(lease);
  return 0;
}

static bool copy_text(char *to, size_t size, const char *from) {
  size_t length = from != NULL ? strlen(from) : 0;

  if (length >= size)
    return false;
  if (length != 0)
    memcpy(to, from, length);
  to[length] = '\0';
  return true;
}

int relay__lease_restore(struct relay *relay, const struct kept *kept) {
  struct lease *lease = make_lease();
  struct gate *gate;
  int err = UV_ENOMEM;

  if (lease != NULL)
    err =
        copy_text(lease->file, sizeof(lease->file), kept->file) &&
                copy_text(lease->host, sizeof(lease->host), kept->host) &&
                copy_text(lease->owner, sizeof(lease->owner), kept->owner) &&
                copy_text(lease->token_id, sizeof(lease->token_id),
                          kept->token) &&
                copy_text(lease->name, sizeof(lease->name), kept->name) &&
                copy_text(lease->ticket, sizeof(lease->ticket), kept->ticket) &&
                copy_text(lease->previous, sizeof(lease->previous),
                          kept->previous)
            ? 0
            : RELAY_EPROTO;
  if (err == 0)
    err =
        find_gate(relay, kept->at, kept->port, NULL, true, kept->share, &gate);
  if (err != 0) {
    free_lease(lease);
    return err;
  }
  enter(lease, gate, kept->share);
  relay__deadline_set(&lease->grace, relay->options.grace_ms);
  relay__log(&relay->logger, RELAY_LOG_INFO, "address kept",
             LOG_TEXT("host", lease->host), LOG_NUMBER("port", gate->port));
  return 0;
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

static bool is_owned(const struct lease *lease, const struct session *session) {
  return session->token_id != NULL &&
         strcmp(lease->token_id, session->token_id) == 0 &&
         strcmp(lease->name, session->name) == 0;
}

struct lease *relay__lease_owned(const struct session *session) {
  link_each(&session->relay->leases, link, next) {
    struct lease *lease = container_of(link, struct lease, link);

    if (is_owned(lease, session) && lease != session->lease)
      return lease;
  }
  return NULL;
}

unsigned relay__lease_count(const struct session *session) {
  const char *id = session->token_id;
  unsigned count = 0;

  link_each(&session->relay->leases, link, next) {
    struct lease *lease = container_of(link, struct lease, link);

    if (id != NULL ? strcmp(lease->token_id, id) == 0
                   : lease->token_id[0] == '\0' &&
                         strcmp(lease->owner, session->from_host) == 0)
      count++;
  }
  return count;
}

unsigned relay__lease_capacity(const struct lease *lease) {
  const struct token *token = relay__trust_token(lease->relay, lease->token_id);

  return token != NULL ? token->visitors : 0;
}

/* What a lost session was told of its unjoined visitors is void. */
static void replace_visitor(struct visitor *visitor, void *subject) {
  if (visitor->lease != subject || visitor->phase == VISITOR_JOINED)
    return;
  relay__visitor_leave(visitor);
  relay__visitor_place(visitor, NULL);
}

/* The same where its successor is here already: no cap on their number. */
static void recall_visitor(struct visitor *visitor, void *subject) {
  if (visitor->lease != subject || visitor->phase == VISITOR_JOINED)
    return;
  relay__visitor_leave(visitor);
  relay__visitor_recall(visitor);
}

/* The session that has it ends; its agent is told why. */
static void replace_session(struct lease *lease) {
  struct session *old = lease->session;

  if (old == NULL)
    return;
  lease->session = NULL; /* while the end of the old one is told with it */
  relay__session_end(old, RELAY_EREPLACED, NULL);
}

/* Whoever comes without a ticket is a new process: its former pairs are gone
   at its end, whether this one has heard of that or not. */
static void end_joined(struct visitor *visitor, void *subject) {
  if (visitor->lease == subject && visitor->phase == VISITOR_JOINED)
    relay__visitor_end(visitor, RELAY_EREPLACED);
}

/* The session that has the lease now serves its pairs. */
static void take_joined(struct visitor *visitor, void *subject) {
  const struct session *session = subject;

  if (visitor->lease == session->lease && visitor->phase == VISITOR_JOINED)
    visitor->agent = session->number;
}

static void renew_ticket(struct lease *lease, const struct session *session) {
  bool knows = relay__id_equals(lease->ticket, session->resume) ||
               relay__id_equals(lease->previous, session->resume);
  char ticket[WIRE_ID_LENGTH + 1];

  /* Without a new ticket the old one goes on: the address matters more. */
  if (relay__id_make(ticket) != 0)
    return;
  memcpy(lease->previous, knows ? session->resume : "",
         knows ? sizeof(lease->previous) : 1);
  memcpy(lease->ticket, ticket, sizeof(lease->ticket));
  relay__state_keep(lease);
}

void relay__lease_supersede(struct session *session) {
  struct lease *lease;

  while ((lease = relay__lease_owned(session)) != NULL) {
    replace_session(lease);
    if (!lease->ended && lease->session == NULL) /* else a hook let one in */
      relay__lease_end(lease, RELAY_EREPLACED, false);
    if (session->ended)
      return;
  }
}

/* Whether a hook has ended one of the two: then they do not come together. */
static bool are_parted(struct lease *lease, struct session *session) {
  if (!lease->ended && !session->ended)
    return false;
  if (!lease->ended && lease->session == NULL)
    relay__lease_detach(lease);
  if (!session->ended)
    relay__session_end(session, RELAY_EGONE, NULL);
  return true;
}

void relay__lease_attach(struct lease *lease, struct session *session) {
  bool is_taken;

  do { /* a hook may let yet another in, which takes it up */
    is_taken = lease->session != NULL;
    replace_session(lease);
    if (are_parted(lease, session))
      return;
    if (is_taken)
      relay__gate_each_visitor(lease->gate, recall_visitor, lease);
    if (session->resume[0] == '\0')
      relay__gate_each_visitor(lease->gate, end_joined, lease);
    if (are_parted(lease, session))
      return;
  } while (lease->session != NULL);
  renew_ticket(lease, session);
  relay__deadline_clear(&lease->grace);
  lease->session = session;
  session->lease = lease;
  relay__gate_each_visitor(lease->gate, take_joined, session);
}

void relay__lease_confirm(struct lease *lease) {
  if (lease->previous[0] == '\0')
    return;
  lease->previous[0] = '\0';
  relay__state_keep(lease);
}

void relay__lease_detach(struct lease *lease) {
  struct relay *relay = lease->relay;

  lease->session = NULL;
  if (relay->options.grace_ms == 0 || relay->draining) {
    relay__lease_end(lease, RELAY_EGONE, relay->draining);
    return;
  }
  relay__deadline_set(&lease->grace, relay->options.grace_ms);
  relay__gate_each_visitor(lease->gate, replace_visitor, lease);
}
