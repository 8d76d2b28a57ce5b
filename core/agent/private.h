/* SPDX-License-Identifier: MIT */
/*
 * What the files of the agent half share. An agent has one session at most
 * (the control connection, and the wait for the next one), visits (visitors
 * it is to serve, or serves), and a pool of waiting data connections.
 *
 *   agent.c    its life: new, drain, close, the end by itself
 *   session.c  reaching the relay, losing it, coming back
 *   control.c  the lines of the control connection
 *   visit.c    one visitor, from its announcement to its end
 *   serve.c    the host's answers
 *   pool.c     data connections ahead of need
 *   keys.c     what a token means for all of them
 *   certs.c    certificates: the other way to know the relay
 *   text.c     what the relay says, made fit to be shown
 *   proxy.c    PROXY protocol headers
 *
 * The host's callbacks run from the loop only. Any of them may close the
 * agent: memory stays until the plane is empty, which is never within a call,
 * so after each callback it is enough to look at `closing`.
 */
#ifndef RELAY_AGENT_PRIVATE_H
#define RELAY_AGENT_PRIVATE_H

#include <netinet/in.h>
#include <relay/agent.h>

#include "flow/crew.h"
#include "net/channel.h"
#include "net/container.h"
#include "net/dial.h"
#include "net/plane.h"
#include "net/resolve.h"
#include "net/stream.h"
#include "wire/address.h"
#include "wire/log.h"
#include "wire/wire.h"

#define HASH_NONFATAL_OOM 1
/* No memory for the table: the caller looks whether the visit is in it. */
#define uthash_nonfatal_oom(visit) ((visit)->listed = false)
#include <uthash.h>

#define AGENT_ID_MAX 64
#define AGENT_PREAMBLE_MAX 512
#define AGENT_REASON_MAX 256
#define AGENT_RELAY_MAX (NI_MAXHOST + 16)

/* ---- the session ------------------------------------------------------ */

/*
 *   RESTING ─timer─► RESOLVING ─► CONNECTING ─► ASKING ─OK─► NAMING ─► OPEN
 *      ▲                 │             │           │           │        │
 *      └─────────────────┴─────────────┴───lost────┴───────────┴────────┘
 *
 * NAMING resolves the `dial` of OK, where it is a name. OVER is the end.
 */
enum session_phase {
  SESSION_RESTING,
  SESSION_RESOLVING,
  SESSION_CONNECTING,
  SESSION_ASKING,
  SESSION_NAMING,
  SESSION_OPEN,
  SESSION_OVER
};

struct session {
  enum session_phase phase;
  struct deadline timer; /* the next attempt, or the end of this one */
  struct deadline beat;

  struct resolve *resolve;
  struct addrinfo *addresses; /* of the relay, while connecting */
  struct dial dial;
  struct channel channel;
  bool talking; /* the channel is started */

  uint64_t backoff_ms;
  uint64_t heartbeat_ms;
  uint64_t dead_ms;
  uint64_t unanswered_ms; /* when the oldest unanswered PING was sent */
  uint64_t pings;
  bool waiting_pong;
  bool last_chance;

  /* Where data connections go: the address reached, or that of `dial`. */
  struct sockaddr_storage data_address;
  struct addrinfo *data_list; /* owned; NULL: data_address alone */

  /* What the last OK said. Empty and 0 before the first. */
  char id[AGENT_ID_MAX + 1];
  char host[NI_MAXHOST];
  unsigned port;
  char ticket[WIRE_LINE_MAX];
  bool plain;     /* data connections are not encrypted */
  bool resumable; /* port and ticket are asked for again */
  bool fresh;     /* differs from what was established before */
  unsigned pool;
  bool is_dataless; /* a data connection failed, and that was said */
  uint64_t dataless_told_ms;

  uint8_t key[SECRET_SIZE]; /* with a token: what binds data connections */

  /* The last complaint, so that it is not repeated endlessly. */
  char complaint[AGENT_REASON_MAX];
  uint64_t complained_ms;
};

/* ---- visits ----------------------------------------------------------- */

/* ASKED: the host has not answered. JOINING: its two sides are being
   connected. JOINED: the pair moves bytes. ENDED: the last handle closes. */
enum visit_phase { VISIT_ASKED, VISIT_JOINING, VISIT_JOINED, VISIT_ENDED };

struct visit {
  struct relay_agent *agent;
  enum visit_phase phase;
  bool listed;    /* in the agent's table */
  bool announced; /* to the host, which then is told the end */
  bool echo;
  bool retrying;         /* the target's backlog was full */
  struct deadline limit; /* its closing frees the visit */
  uint64_t arrived_ms;
  uint64_t expires_ms;
  uint64_t ended_ms;

  struct stream *data;   /* to the relay, connected */
  struct stream *target; /* to the local service, connected */
  struct link undialed;  /* its data connection waits for its turn */
  bool dialing;          /* it is being made */
  struct dial data_dial;
  struct dial target_dial;
  struct sockaddr_storage target_address;
  socklen_t target_length;
  struct resolve *target_resolve;
  struct addrinfo *target_list;  /* owned */
  struct addrinfo loopback_info; /* ::1, to be tried after 127.0.0.1 */
  struct sockaddr_in6 loopback;
  struct pair *pair;

  int reason;
  uint64_t bytes_in;
  uint64_t bytes_out;

  UT_hash_handle hh;
  char id[AGENT_ID_MAX + 1];
  char from[ADDRESS_TEXT_MAX];
  char to[ADDRESS_TEXT_MAX];
};

/* ---- the pool --------------------------------------------------------- */

struct pool {
  struct link waiting; /* connections, those under way included */
  unsigned count;
  uint64_t next_n; /* never repeats within a session */
  uint64_t backoff_ms;
  struct deadline refill;
};

/* ---- the agent -------------------------------------------------------- */

struct relay_agent {
  struct plane plane;
  struct crew crew; /* runs the pairs */
  struct logger logger;
  relay_agent_options options; /* host and name are owned copies */
  struct tls_context *tls;     /* NULL: neither a token nor certificates */
  char token_id[TOKEN_ID_MAX + 1];
  uint8_t token_key[SECRET_SIZE];
  char token[TOKEN_TEXT_MAX + 1]; /* with certificates: said inside of TLS */
  struct tls_files files;         /* certificates; the paths are owned */
  char *relay_name; /* theirs has to be for it; NULL: the token's key it is */
  unsigned disbeliefs; /* in a row, by either end */
  struct session session;
  struct pool pool;

  struct link partings;      /* data connections of rejected visitors */
  struct link undialed;      /* visits, the next one first */
  struct deadline next_dial; /* that one's turn */
  unsigned dialing;

  struct visit *visits; /* by id, those not ended */
  unsigned visits_open; /* those whose end is still to be told included */
  bool is_unserved;     /* a service was not reached, and that was said */
  uint64_t unserved_told_ms;
  uint64_t rejected_told_ms;

  struct deadline drain;
  uint64_t drain_at_ms;
  bool draining;
  bool ended; /* on_end was called, or must not be any more */
  bool closing;
  relay_agent_close_fn on_close;
  void *close_data;
};

/* ---- agent.c ---------------------------------------------------------- */

/* The agent ends by itself: tells the host, once. From the loop only. */
void relay__agent_end(struct relay_agent *agent, int error, const char *reason);
/* A visit has told its end: a draining agent may be done. */
void relay__agent_settle(struct relay_agent *agent);
/* Whether what may happen to each visitor is to be told now, which is once a
   second; `told_ms` is when it was, or 0. */
bool relay__agent_may_tell(const struct relay_agent *agent, uint64_t *told_ms);
/* A wait that is jittered: between three quarters of `ms` and `ms`. */
uint64_t relay__agent_jitter(uint64_t ms);

/* ---- session.c -------------------------------------------------------- */

/* `ticket`: of an earlier process, or NULL. */
void relay__session_init(struct relay_agent *agent, const char *ticket);
/* Says BYE if there is whom to say it to, and goes OVER. Idempotent. */
void relay__session_leave(struct relay_agent *agent);
void relay__session_close(struct relay_agent *agent);
/* This attempt, or session, is over; `wait_ms` until the next, or
   SESSION_BACKOFF. */
#define SESSION_BACKOFF UINT64_MAX
void relay__session_lost(struct relay_agent *agent, int error,
                         const char *reason, uint64_t wait_ms);
/* The relay said that there is no coming back. */
void relay__session_refused(struct relay_agent *agent, int error,
                            const char *reason);
/* One end does not believe the other's certificate; `verdict` is of the
   relay's. */
void relay__session_disbelieved(struct relay_agent *agent, int verdict);
/* `dial` of OK is a name: look it up, then open. */
int relay__session_name_data(struct relay_agent *agent, const char *host,
                             unsigned port);
/* OK is complete. */
void relay__session_open(struct relay_agent *agent);
/* Starts a data connection: to where the session says; and what came of it. */
int relay__session_dial(struct relay_agent *agent, struct dial *dial);
void relay__session_note_data(struct relay_agent *agent, int error);

/* ---- control.c -------------------------------------------------------- */

/* The connection is made: LISTEN, and what comes of it. The stream is taken
   over. */
void relay__control_start(struct relay_agent *agent, struct stream *stream);
/* Nothing when there is no control connection. */
void relay__control_reject(struct relay_agent *agent, const char *id,
                           const char *reason);
void relay__control_bye(struct relay_agent *agent);
void relay__control_beat(struct relay_agent *agent);

/* ---- keys.c ----------------------------------------------------------- */

/* Takes the token of the options, if there is one, and TLS if it is wanted. 0,
   UV_EINVAL for what is no token, UV_ENOMEM. */
int relay__keys_take(struct relay_agent *agent);
void relay__keys_free(struct relay_agent *agent);
/* Each is 0 at once where there is no TLS. The control connection proves the
   token, or knows the relay by its certificate; once that is done, the keys of
   the others follow. */
int relay__keys_secure_control(struct relay_agent *agent, struct dial *dial);
int relay__keys_export(struct relay_agent *agent, struct stream *control);
/* By TLS, or by what is added to the line, as the relay granted. */
int relay__keys_secure_accept(struct relay_agent *agent, struct dial *dial,
                              struct wire_line *line, const char *id);
int relay__keys_secure_wait(struct relay_agent *agent, struct dial *dial,
                            struct wire_line *line, uint64_t n);

/* ---- certs.c ---------------------------------------------------------- */

bool relay__certs_are_wanted(const relay_agent_options *options);
/* Takes and reads those of the options. 0, RELAY_ECERT (and a log record),
   UV_ENOMEM. */
int relay__certs_take(struct relay_agent *agent);
void relay__certs_free(struct relay_agent *agent);
/* Before the relay is asked again: what was not believed may be another by
   now. */
void relay__certs_refresh(struct relay_agent *agent);
/* Why the relay and we did not believe each other, and what to do about it;
   `verdict` as struct dial has it. */
void relay__certs_explain(const struct relay_agent *agent, int verdict,
                          char *text, size_t size);

/* ---- text.c ----------------------------------------------------------- */

/* Copies text with every control or malformed byte as '?'. */
void relay__text_sanitize(char *out, size_t size, const char *text);
/* HOST:PORT of the relay, as the host program named it. */
void relay__text_relay(const struct relay_agent *agent, char *text,
                       size_t size);

/* ---- visit.c ---------------------------------------------------------- */

/* A visitor was announced, on control (`data` NULL) or on a waiting
   connection, which is taken over. */
void relay__visit_arrive(struct relay_agent *agent,
                         const struct wire_message *message,
                         struct stream *data);
struct visit *relay__visit_find(const struct relay_agent *agent,
                                const char *id);
/* Ends a visit: its connections are reset, and the host is told, later. With
   `why`, the relay is told as well. Idempotent. */
void relay__visit_end(struct visit *visit, int reason, const char *why);
/* Ends all of them; only those that are not joined; only those that have no
   data connection yet. */
void relay__visit_end_all(struct relay_agent *agent, int reason);
void relay__visit_end_unjoined(struct relay_agent *agent, int reason);
void relay__visit_end_unreached(struct relay_agent *agent, int reason);
/* Joins the two sides once both are there. */
void relay__visit_join(struct visit *visit);
/* Takes up what waited for the session to know where data connections go. */
void relay__visit_resume(struct relay_agent *agent);

/* ---- serve.c ---------------------------------------------------------- */

void relay__serve_init(struct visit *visit);
/* Keeps a connected side until the other is there: its bytes stay in the
   kernel, but a reset is heard. */
int relay__serve_hold(struct visit *visit, struct stream *stream);
/* Opens the data connection, if there is none yet: at once, or with a token
   when it is its turn, since a relay bears only so many that have yet to prove
   theirs. */
void relay__serve_data(struct visit *visit);
/* Its turn is over, or will not come. */
void relay__serve_undial(struct visit *visit);
void relay__serve_next(struct deadline *next_dial);
/* Tries a target again whose backlog was full. */
void relay__serve_retry(struct visit *visit);
/* The target cannot be reached: says so. */
void relay__serve_unreached(struct visit *visit, int error);

/* ---- pool.c ----------------------------------------------------------- */

void relay__pool_init(struct relay_agent *agent);
/* Fills up to what the relay granted. */
void relay__pool_fill(struct relay_agent *agent);
/* Closes every waiting connection: the session they belong to is over. */
void relay__pool_drop(struct relay_agent *agent);
void relay__pool_close(struct relay_agent *agent);

/* ---- parting.c -------------------------------------------------------- */

/* Takes over the data connection of a visitor that was just rejected, or NULL,
   and closes it once the relay has; at once where that has happened. */
void relay__parting_begin(struct relay_agent *agent, struct stream *stream);
void relay__parting_end_all(struct relay_agent *agent);

#endif
