/* SPDX-License-Identifier: MIT */
/*
 * Addresses: a public port, and an agent's place at it. See private.h.
 */
#ifndef RELAY_LEASE_H
#define RELAY_LEASE_H

#include "relay/private.h"

/* A public port: its listener, and the visitors who came through it. */
struct gate {
  struct relay *relay;
  struct link link;
  struct listener listener;
  struct deadline reaper; /* only to be freed from the loop */
  bool listening;
  bool closed; /* the listener is, the gate may go on for its pairs */
  bool ended;
  bool declared; /* by policy: open without a lease */
  bool shared;   /* may have more than one lease */
  unsigned port;
  struct link leases;
  struct link visitors;
  unsigned visitor_count;
  unsigned parked_count;
};

/* An agent's place at a gate. */
struct lease {
  struct relay *relay;
  struct link link;
  struct gate *gate;
  struct link gate_link;
  bool ended;
  char host[HOST_MAX_LENGTH + 1]; /* what the agent is told */
  char owner[ADDRESS_HOST_MAX];
  char token_id[OWNER_KEY_MAX + 1]; /* its owner's; "": none */
  char name[NAME_MAX_LENGTH + 1];   /* what its owner calls it */
  char ticket[WIRE_ID_LENGTH + 1];
  char previous[WIRE_ID_LENGTH + 1]; /* valid until the new one is confirmed */
  char file[WIRE_ID_LENGTH + 1];     /* its name in the state; "": none */
  bool unkept;                       /* the state does not have it as it is */
  struct session *session;           /* NULL while in grace */
  struct deadline grace;
  unsigned conns;           /* visitors it serves */
  struct rate_share *share; /* the limits of all its pairs together */
};

/* ---- gate.c ----------------------------------------------------------- */
/* port 0: the next free one that the token may have; NULL: the relay's; host
   NULL: as the relay listens. 0, or why not (UV_EADDRINUSE, RELAY_ENO_PORT,
   …). */
int relay__gate_open(struct relay *relay, const char *host, unsigned port,
                     const struct token *token, struct gate **out);
struct gate *relay__gate_find(struct relay *relay, unsigned port);
/* Closes the listener; unjoined visitors are reset, joined ones too unless
   spared. */
void relay__gate_end(struct gate *gate, int reason, bool spare_pairs);
void relay__gate_stop_listening(struct gate *gate);
/* For all visitors of the gate; `call` may end any of them. */
typedef void (*visitor_call_fn)(struct visitor *visitor, void *subject);
void relay__gate_each_visitor(struct gate *gate, visitor_call_fn call,
                              void *subject);
/* How many visitors it takes: as the relay does, or its leases' tokens. */
unsigned relay__gate_capacity(const struct gate *gate);
/* The lease to serve a visitor: of the agent chosen, else of the one with the
   fewest; NULL while no agent is there. */
struct lease *relay__gate_pick(struct gate *gate, uint64_t chosen);

/* ---- lease.c ---------------------------------------------------------- */
/* Opens the address, port 0: the next free one; `given`: by the policy, which
   the agent's wish for a port that is declared is not. 0, or why not. */
int relay__lease_open(struct session *session, unsigned port, bool given,
                      const char *host, bool share);
/* A lease as it was kept, and its texts, borrowed. */
struct kept {
  const char *file;
  const char *host;
  const char *owner;
  const char *token; /* its id, or NULL */
  const char *name;  /* or NULL */
  const char *ticket;
  const char *previous; /* or NULL */
  const char *at;       /* the address its gate listens on */
  unsigned port;
  bool share;
};
/* Opens it again, in grace. 0, or why not. */
int relay__lease_restore(struct relay *relay, const struct kept *kept);
/* The agent has its new ticket: the one before is void. */
void relay__lease_confirm(struct lease *lease);
/* The lease a ticket is for, or NULL. */
struct lease *relay__lease_find(struct relay *relay, const char *ticket);
/* How many leases the owner of this session has: its token, or else its
   address. */
unsigned relay__lease_count(const struct session *session);
/* Most visitors at a time as its token has it; 0: no such limit. */
unsigned relay__lease_capacity(const struct lease *lease);
/* The lease that the session's owner has under its name, or NULL: nobody but
   the owner of a key has one so. */
struct lease *relay__lease_owned(const struct session *session);
/* Ends those that its owner had under the same name. */
void relay__lease_supersede(struct session *session);
/* A session takes the lease up; one that has it is replaced. One that does not
   know of its pairs ends them. */
void relay__lease_attach(struct lease *lease, struct session *session);
/* The session is gone; the address is kept for the grace time. */
void relay__lease_detach(struct lease *lease);
/* Leaves the gate, which closes behind the last one. Unjoined visitors go to
   another agent of the gate or are reset, joined ones are reset unless
   spared. */
void relay__lease_end(struct lease *lease, int reason, bool spare_pairs);

/* ---- state.c ---------------------------------------------------------- */
/* Opens and locks the directory; then listens on what is kept in it. 0, or
   RELAY_ESTATE. */
void relay__state_init(struct relay *relay);
int relay__state_open(struct relay *relay);
int relay__state_restore(struct relay *relay);
void relay__state_close(struct relay *relay);
/* The lease is new, or its ticket. What fails is tried again until it works. */
void relay__state_keep(struct lease *lease);
/* The lease has ended; nothing while it is the relay that ends. */
void relay__state_drop(struct lease *lease);

#endif
