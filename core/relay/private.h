/* SPDX-License-Identifier: MIT */
/*
 * What the files of the relay half share: the relay itself here, and then its
 * nouns, each in a header of its own, in the order a connection meets them.
 *
 *   (preface) ─► handshake, visitor
 *   handshake ─LISTEN─► session ─► lease ─► gate ─► visitor ─┐
 *             ─ACCEPT──────────────────────────────────────► pair
 *             ─WAIT───► waiting ─────────────────────────────┘
 *
 * Each has one teardown, named *_end or *_close, which is idempotent, takes the
 * object off every list at once, and frees it when its last handle has closed.
 */
#ifndef RELAY_PRIVATE_H
#define RELAY_PRIVATE_H

#include <relay/relay.h>

#include "flow/crew.h"
#include "net/binding.h"
#include "net/channel.h"
#include "net/container.h"
#include "net/listener.h"
#include "net/plane.h"
#include "net/tls.h"
#include "relay/penalty.h"
#include "relay/registry.h"
#include "relay/tokens.h"
#include "wire/address.h"
#include "wire/log.h"
#include "wire/network.h"

#define NAME_MAX_LENGTH 64
#define HOST_MAX_LENGTH 255
#define STATE_PATH_MAX 1024
#define ALLOCATE_ATTEMPTS 16
/* Whose a lease is: the id of a token, or this and the name in a certificate. A
   token's id has no colon. */
#define CERTIFICATE_PREFIX "cert:"
#define OWNER_KEY_MAX (sizeof(CERTIFICATE_PREFIX) - 1 + TOKEN_ID_MAX)

struct asking;
struct proof;
struct session;
struct visitor;

/* Those that were refused, by kind: what is logged at once, and what is only
   counted for a while. */
#define COMPLAINT_KINDS 24

struct complaint {
  const char *what; /* static; NULL: none yet */
  relay_log_level level;
  uint64_t logged_ms;
  uint64_t count;              /* since then */
  char from[ADDRESS_TEXT_MAX]; /* of the last of them */
};

struct complaints {
  struct complaint kinds[COMPLAINT_KINDS];
  struct deadline due;
};

struct relay {
  relay_options options; /* its texts point into the arrays below */
  char listen_host[HOST_MAX_LENGTH + 1];
  char advertise[HOST_MAX_LENGTH + 1];
  char dial[HOST_MAX_LENGTH + 8];
  char host[ADDRESS_HOST_MAX];
  char state[STATE_PATH_MAX];
  int state_fd; /* that directory; -1: none */
  uint64_t state_logged_ms;
  struct deadline state_due; /* keeps what could not be kept */
  relay_policy policy;
  struct logger logger;
  struct plane plane;
  struct crew crew;         /* runs the pairs */
  struct listener listener; /* for agents */
  struct registry registry;
  struct asking *asking;
  uint64_t next_id;   /* of agents and conns */
  uint64_t next_call; /* of questions: no gaps in what people see */

  struct networks proxy_from; /* balancers that are believed */
  struct link prefaces;
  struct tls_context *tls; /* NULL: nobody decides whom a key lets in, and there
                              are no certificates */
  struct tls_files files;  /* those; the paths are owned */
  uint64_t denied_logged_ms;
  struct tokens *tokens; /* NULL: it is open */
  char *tokens_path;
  struct deadline tokens_due; /* looks for those that expire */
  int64_t tokens_expire;      /* when the next does, seconds since 1970 */
  struct penalties penalties;
  struct complaints complaints;

  struct link handshakes;
  struct link proven;    /* handshakes that may say their line, oldest first */
  unsigned proven_count; /* those, and those that a hook is asked about */
  struct link refusals;
  struct link sessions;
  struct link gates;
  struct link leases;
  struct link visitors;
  unsigned gates_paused;
  uint64_t paused_logged_ms;
  uint64_t short_logged_ms;
  struct deadline resume; /* looks for descriptors soon after one was freed */
  struct deadline tick;
  uint64_t tick_ms;
  unsigned last_port;
  uint8_t ports[65536 / 8]; /* open here */

  relay_stats stats;

  bool open; /* relay_new has succeeded */
  bool draining;
  bool closing;
  struct deadline drain;
  uint64_t drain_due_ms;
  relay_close_fn on_drained;
  void *drained_data;
  relay_close_fn on_close;
  void *close_data;
};

/* ---- relay.c ---------------------------------------------------------- */
uint64_t relay__now_ms(const struct relay *relay);
/* Whether a visitor and its data connection find room. */
bool relay__admit_visitor(struct relay *relay);
/* A listener of a visitor address had to pause. */
void relay__note_pause(struct relay *relay);
/* Something ended: is a drain complete? */
void relay__check_drained(struct relay *relay);

/* ---- options.c -------------------------------------------------------- */
/* Those given over the defaults, with copies of their texts. UV_EINVAL. */
int relay__options_take(struct relay *relay, const relay_options *given);

/* ---- trust.c ---------------------------------------------------------- */
int relay__trust_init(struct relay *relay);
void relay__trust_free(struct relay *relay);
/* The token, as the file has it now; NULL: none such, and for a NULL id. */
const struct token *relay__trust_token(const struct relay *relay,
                                       const char *id);
/* Why whoever has proven this token (NULL: none) gets no address; NULL: it
   does. */
const char *relay__trust_refusal(const struct relay *relay, const char *id);

/* ---- certificates.c --------------------------------------------------- */
/* Reads those of the options, if there are any. 0, RELAY_ECERT or UV_ENOMEM. */
int relay__certificates_init(struct relay *relay);
void relay__certificates_free(struct relay *relay);

/* ---- the nouns: each may hold what those before it have -------------- */

#include "relay/policy.h"

#include "relay/handshake.h"

#include "relay/lease.h"

#include "relay/session.h"

#include "relay/visitor.h"

#endif
