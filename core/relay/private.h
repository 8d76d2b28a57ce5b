/* SPDX-License-Identifier: MIT */
/*
 * The relay half's own structures, in the order a connection meets them.
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

#include "flow/pair.h"
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

/* A verdict whose texts are its own. */
struct verdict {
  relay_verdict given;
  uint8_t key[SECRET_SIZE];
  char reason[256];
  char name[NAME_MAX_LENGTH + 1];
  char host[HOST_MAX_LENGTH + 1];
};

/* A hook that is being called right now; they nest. */
struct asking {
  struct asking *outer;
  uint64_t call;
  bool settled;
  bool keyed; /* by relay_verify */
  uint8_t key[SECRET_SIZE];
  struct verdict verdict;
};

/* A question to the policy that may be settled later. */
struct question {
  uint64_t call;
  struct entry entry; /* listed while it is open */
};

/* Those that were refused, by kind: what is logged at once, and what is only
   counted for a while. */
#define COMPLAINT_KINDS 24

struct complaint {
  const char *what; /* static; NULL: none yet */
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

/* A connection to the agent port that has not said what it is. */
struct handshake {
  struct relay *relay;
  struct link link;
  struct source *source;   /* NULL once it has proven a key */
  struct link source_link; /* of the source's silent or speaking ones, then of
                              the relay's that are proven and listened to */
  struct stream *stream;
  struct deadline deadline;
  uint64_t due_ms;
  struct proof *proof; /* what it says over TLS; NULL: it is plain */
  bool proven;         /* counted among those, until its line has come */
  bool listened;       /* for its line; so it is in their list */
  bool ended;
  char from[ADDRESS_TEXT_MAX];
  size_t length;
  char line[WIRE_LINE_MAX];
};

/* Who a handshake over TLS says it is, and what is known of that. */
enum claim { CLAIM_NOTHING, CLAIM_TOKEN, CLAIM_VISITOR, CLAIM_WAITING };

/* By certificate. Empty where none was asked for. */
struct subject {
  char name[TLS_NAME_MAX + 1];
  char fingerprint[TLS_FINGERPRINT_SIZE];
};

struct proof {
  struct handshake *handshake;
  enum claim claim;
  bool certified;    /* by certificates; a token, if any, comes in its line */
  const char *fault; /* why it can prove nothing; static; NULL: it may */
  bool decided;      /* nobody is to be asked any more */
  bool settled;      /* the key it has to prove is */
  bool fits;         /* certified: that is the key of its token */
  bool due;          /* it is to go on, from the loop */
  bool proven;
  bool admitted; /* by auth: agent_gone will be told */
  bool plain;    /* auth lets it have data=plain */
  bool keyed;    /* relay_verify gave its key */
  bool of_file;  /* which is the one in the tokens file */
  uint64_t number;
  uint64_t since_ms;
  struct entry by_number;
  struct question question;
  uint64_t left_ms;         /* of the handshake's time, while it stands still */
  uint64_t hook_left_ms;    /* of the hook's, in the same way */
  uint8_t key[SECRET_SIZE]; /* certified: what follows from its token */
  struct subject subject;
  char token_id[TOKEN_ID_MAX + 1];
  char owner[NAME_MAX_LENGTH + 1];
  char from_host[ADDRESS_HOST_MAX];
};

/* An answer to a fault, which waits. The connection has proven nothing still,
   and gives way to any other. */
struct refusal {
  struct relay *relay;
  struct link link;
  struct source *source;
  struct link source_link;
  struct stream *stream;
  struct deadline deadline;
  int error;
  const char *reason;
};

/* An agent's control connection. */
struct session {
  struct relay *relay;
  struct link link;
  uint64_t number;
  struct entry by_number;
  struct entry by_id;
  char id[WIRE_ID_LENGTH + 1];
  const char
      *token_id; /* what it has proven, as a lease has it; NULL: nothing */
  bool by_token; /* that is the id of a token */
  struct question question;
  unsigned attempt;      /* of allocate */
  struct stream *stream; /* until the channel has it */
  struct channel channel;
  struct lease *lease;
  unsigned port;            /* the lease's, also once it is let go */
  struct deadline deadline; /* a hook's wait, then the heartbeat */
  uint64_t started_ms;
  uint64_t unanswered_ms; /* of the oldest PING without a word since; or 0 */
  uint64_t heard_lines;
  uint64_t pings;
  struct link waiting;   /* pooled data connections */
  uint64_t waiting_last; /* highest n of a WAIT, and the 64 before it */
  uint64_t waiting_seen;
  unsigned waiting_count;
  unsigned pool; /* granted */
  bool admitted; /* let in by auth: agent_gone will be told */
  bool ended;
  bool last_chance; /* dead, but for what may lie unread */
  bool bound; /* its data connections have to prove what follows from `key` */
  bool plain; /* on a plain connection, by a mac */
  bool want_plain; /* said LISTEN */
  uint8_t key[SECRET_SIZE];
  char token_text[OWNER_KEY_MAX + 1];
  struct subject subject;
  char owner[NAME_MAX_LENGTH + 1];

  /* What LISTEN said. */
  unsigned want_port;
  char name[NAME_MAX_LENGTH + 1];
  char dialed[HOST_MAX_LENGTH + 1];
  char resume[WIRE_ID_LENGTH + 1];
  char from[ADDRESS_TEXT_MAX];
  char from_host[ADDRESS_HOST_MAX];
};

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
  unsigned conns;            /* visitors it serves */
  struct rate_limit rate_in; /* of all its pairs together */
  struct rate_limit rate_out;
};

/*
 *   ASKED ─allowed─► (PEEKING) ─► SENT ──ACCEPT──► JOINED ──► ended
 *                                 │  ▲
 *                     agent silent▼  │agent heard again
 *                                PARKED
 */
enum visitor_phase {
  VISITOR_ASKED,
  VISITOR_PEEKING,
  VISITOR_SENT,
  VISITOR_PARKED,
  VISITOR_JOINED
};

/* What policy wants shown in the visitor's log records. */
struct tag {
  struct tag *next;
  const char *value; /* in `key`, behind the key */
  char key[];
};

/* A program that connected to a gate. */
struct visitor {
  struct relay *relay;
  struct gate *gate;     /* NULL when the gate ended before its pair */
  struct lease *lease;   /* that serves it; NULL while none does */
  struct link link;      /* of the relay's */
  struct link gate_link; /* of the gate's */
  enum visitor_phase phase;
  bool let_in;   /* close will be told */
  bool reserved; /* holds the descriptor of its data connection */
  bool ended;
  bool peek_is_last; /* no more bytes will be waited for */
  uint64_t number;
  struct entry by_number;
  struct entry by_id;
  char id[WIRE_ID_LENGTH + 1];
  struct question question;
  struct stream *stream; /* until joined */
  struct pair *pair;
  struct deadline deadline;
  struct pair_limits limits;
  struct tag *tags;
  uint64_t chosen; /* the agent policy picked */
  uint64_t agent;  /* number of the session that serves it */
  uint64_t peek_ms;
  uint64_t started_ms;
  uint64_t sent_lines; /* the session's heard_lines when it was told */
  uint64_t bytes_in;   /* once ended */
  uint64_t bytes_out;
  int reason;
  char *why; /* in policy's own words; NULL: none */
  uint64_t peek_until_ms;
  unsigned peek_need;
  unsigned peek_count; /* bytes the hook was shown */
  unsigned listen_port;
  unsigned from_port;
  char from[ADDRESS_TEXT_MAX];
  char from_host[ADDRESS_HOST_MAX];
  char to[ADDRESS_TEXT_MAX]; /* as a balancer told; "": the socket's own */
};

/* A data connection ahead of need. */
struct waiting {
  struct session *session;
  struct link link;
  struct stream *stream;
  uint64_t since_ms;
};

/* ---- relay.c ---------------------------------------------------------- */
uint64_t relay__now_ms(const struct relay *relay);
/* Whether a visitor and its data connection find room. */
bool relay__admit_visitor(struct relay *relay);
/* A listener of a visitor address had to pause. */
void relay__note_pause(struct relay *relay);
/* Something ended: is a drain complete? */
void relay__check_drained(struct relay *relay);

/* ---- preface.c -------------------------------------------------------- */
/* Reads a PROXY header, then starts a visitor of the gate, or a handshake
   (gate NULL), with the addresses it told. Takes the stream over. */
void relay__preface_start(struct relay *relay, struct gate *gate,
                          struct stream *stream, const struct sockaddr *from);
/* Ends those of the gate; NULL: all. */
void relay__prefaces_end(struct relay *relay, const struct gate *gate);

/* ---- handshake.c ------------------------------------------------------ */
bool relay__handshake_admit(struct listener *listener);
void relay__handshake_start(struct relay *relay, struct stream *stream,
                            const struct sockaddr *from);
void relay__handshake_end(struct handshake *handshake);
/* The same for a fault that is not answered: a data connection of nobody's, or
   there is nobody left to answer. `what` is static. */
void relay__handshake_reject(struct handshake *handshake, const char *what);
/* The same, but for its stream. */
struct stream *relay__handshake_release(struct handshake *handshake);
/* It has proven a key: it is no stranger any more, its source no suspect. There
   are at most max_unproven that have, and have not said their line: the oldest
   of those that could gives way, or this one. May end it. */
void relay__handshake_prove(struct handshake *handshake);
/* One connection that had proven nothing is gone, or has. */
void relay__unproven_left(struct relay *relay);
/* Its line is read, from now on. */
void relay__handshake_listen(struct handshake *handshake);
/* Its line is there, and what it says is proven where it has to be. */
void relay__handshake_go_on(struct handshake *handshake);

/* ---- fault.c ---------------------------------------------------------- */
/* Somebody's fault, `what` is for the log, static. The time to its answer, as
   relay__source_fault says; the source may be NULL. */
uint64_t relay__fault_note(struct relay *relay, struct source *source,
                           const char *from, const char *what);
/* It was at fault, `what` is for the log, static, and is told who it was from.
   The answer, `error` and `reason` (static or NULL), waits as its source
   deserves. Ends the handshake. */
void relay__handshake_fail(struct handshake *handshake, int error,
                           const char *reason, const char *what);
/* The same of a connection that had gone further: from there, for the reason
   `what`. Takes the stream over. */
void relay__refuse_stranger(struct relay *relay, struct stream *stream,
                            const char *from, int error, const char *what);
/* Says ERR and closes in order. Takes the stream over. */
void relay__refuse(struct relay *relay, struct stream *stream, int error,
                   const char *reason);

/* ---- proof.c ---------------------------------------------------------- */
/* It begins like TLS. May end the handshake. */
void relay__proof_start(struct handshake *handshake);
/* A hook took too long. */
void relay__proof_late(struct handshake *handshake);
void relay__proof_decide(struct proof *proof, const relay_verdict *verdict);
void relay__proof_verify(struct proof *proof, const uint8_t key[SECRET_SIZE]);
/* It was `due`. */
void relay__proof_due(struct proof *proof);
void relay__proof_info(const struct proof *proof, relay_agent_info *info);
/* Its handshake has gone: whoever was asked or told about it hears of that. */
void relay__proof_end(struct proof *proof);
/* The same where it goes on as a session. */
void relay__proof_leave(struct proof *proof);

/* For claim.c. The key it has to prove; NULL: none it could, `fault` (static)
   is why. Asking may end the handshake, and so may going on. */
void relay__proof_settle(struct proof *proof, const uint8_t *key,
                         const char *fault);
void relay__proof_ask(struct proof *proof);
void relay__proof_go_on(struct proof *proof);

/* ---- claim.c ---------------------------------------------------------- */
/* What is said to whoever is refused within TLS, whatever the reason. */
#define TOKEN_REFUSAL "the token was not accepted"
/* TLS tells who it is to be: its key is settled, or asked about, or it is to be
   the certificate. May end the handshake. */
void relay__claim_read(struct proof *proof);
/* The certificates are shown. May end the handshake. */
void relay__claim_show(struct proof *proof);
/* Whether this LISTEN has a token that is to be proven first; then the
   handshake is in its hands, and may have ended. */
bool relay__claim_takes(struct proof *proof, const struct wire_message *listen);
/* Whether this line is what it has proven to be. */
bool relay__claim_fits(const struct proof *proof,
                       const struct wire_message *message);
/* Why its TLS failed with this error, for the log. Static. */
const char *relay__claim_fault(const struct proof *proof, int error);

/* ---- data.c ----------------------------------------------------------- */
/* Why this line comes from nobody of ours: there is no such session, it has a
   key that was not proven, or the visitor is another's; static. NULL: it does
   not. */
const char *relay__data_fault(struct relay *relay, const struct stream *stream,
                              const struct wire_message *message);
/* Takes the stream over. */
void relay__data_join(struct relay *relay, struct stream *stream,
                      const struct wire_message *accept, const char *from);

/* ---- refusal.c -------------------------------------------------------- */
/* Says ERR after `ms`. Takes over the stream, and a hold of the source. */
void relay__refusal_start(struct relay *relay, struct source *source,
                          struct stream *stream, uint64_t ms, int error,
                          const char *reason);
/* By reset, without an answer. */
void relay__refusal_end(struct refusal *refusal);

/* ---- complaints.c ----------------------------------------------------- */
void relay__complaints_init(struct relay *relay);
/* Somebody was refused. Where penalties are in force, one record a second is
   made of each kind. */
void relay__complain(struct relay *relay, const char *from, const char *what);

/* ---- admission.c ------------------------------------------------------ */
/* Takes the stream over, not the proof; NULL: it has proven nothing. */
void relay__session_start(struct relay *relay, struct stream *stream,
                          const struct wire_message *listen, const char *from,
                          const struct proof *proof);
void relay__session_decide(struct session *session,
                           const relay_verdict *verdict);

/* ---- session.c -------------------------------------------------------- */
/* It has its lease: from now on it is lines. */
void relay__session_establish(struct session *session, bool resumed);
void relay__session_beat(struct session *session);
/* Takes it out of sight; left are its stream or channel, and to free it. */
void relay__session_withdraw(struct session *session, int reason);
void relay__session_free(struct deadline *deadline);
void relay__session_end(struct session *session, int reason, const char *text);
struct session *relay__session_find(struct relay *relay, const char *id);
void relay__session_info(const struct session *session, relay_agent_info *info);
/* Sends VISITOR on control. 0, or why not. */
int relay__session_announce(struct session *session, struct visitor *visitor);
void relay__session_gone(struct session *session, const char *id, int error);

/* ---- waiting.c -------------------------------------------------------- */
/* Takes the stream over, also on failure. */
void relay__waiting_start(struct relay *relay, struct stream *stream,
                          const struct wire_message *wait, const char *from);
void relay__waiting_end(struct waiting *waiting);
/* Ends those that have waited for too long. */
void relay__waiting_retire(struct session *session);
/* A live one, with VISITOR said on it, or NULL. */
struct stream *relay__waiting_take(struct session *session,
                                   struct visitor *visitor);

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
/* Opens the address, port 0: the next free one. 0, or why not. */
int relay__lease_open(struct session *session, unsigned port, const char *host,
                      bool share);
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

/* ---- visitor.c -------------------------------------------------------- */
/* `to` as a balancer told it; NULL: the socket's own. Takes the stream over. */
void relay__visitor_start(struct gate *gate, struct stream *stream,
                          const struct sockaddr *from,
                          const struct sockaddr *to);
void relay__visitor_end(struct visitor *visitor, int reason);
struct visitor *relay__visitor_find(struct relay *relay, const char *id);
void relay__visitor_decide(struct visitor *visitor,
                           const relay_verdict *verdict);
void relay__visitor_info(const struct visitor *visitor, relay_conn_info *info);
/* Its lease serves it no more. */
void relay__visitor_leave(struct visitor *visitor);

/* ---- placing.c -------------------------------------------------------- */
/* Announces the visitor to an agent of its gate, or parks it. A
   visitor_call_fn, without subject. */
void relay__visitor_place(struct visitor *visitor, void *subject);
/* The session `subject` was heard: one parked for its silence has time again,
   one parked for want of an agent is placed. */
void relay__visitor_heard(struct visitor *visitor, void *subject);
/* What its agent was told is void; it will be placed anew, soon. */
void relay__visitor_recall(struct visitor *visitor);
/* SENT or PARKED for too long. */
void relay__visitor_late(struct visitor *visitor);
void relay__visitor_unpark(struct visitor *visitor);
/* Begins the VISITOR line that announces it. */
void relay__visitor_line(struct visitor *visitor, struct wire_line *line);
/* Joins it to a data connection. Takes the stream over. */
void relay__visitor_join(struct visitor *visitor, struct stream *data);

/* ---- peek.c ----------------------------------------------------------- */
void relay__peek_start(struct visitor *visitor);
/* Silence: the hook gets what there is. */
void relay__peek_late(struct visitor *visitor);
void relay__peek_decide(struct visitor *visitor, const relay_verdict *verdict);
void relay__peek_event(struct visitor *visitor);

/* ---- verdict.c -------------------------------------------------------- */
/* ALLOW, and nothing beside it. */
void relay__verdict_init(struct verdict *verdict);
void relay__verdict_deny(struct verdict *verdict, const char *reason);
/* What it points to is copied into it. */
void relay__verdict_own(struct verdict *verdict);
/* Its key is gone from memory. */
void relay__verdict_wipe(struct verdict *verdict);
/* The same verdict in another place. */
void relay__verdict_move(struct verdict *to, const struct verdict *from);

/* ---- policy.c --------------------------------------------------------- */
/* Each asks its hook; true: `verdict` is decided; false: it was deferred, and
   the owner's *_decide will be called, or its deadline expires. */
bool relay__ask_auth(struct session *session, struct verdict *verdict);
/* The same of one that has an id. `keyed`: relay_verify was called meanwhile,
   with this `key`, whatever the answer. */
bool relay__ask_proof(struct proof *proof, struct verdict *verdict, bool *keyed,
                      uint8_t key[SECRET_SIZE]);
bool relay__ask_allocate(struct session *session, struct verdict *verdict);
bool relay__ask_visitor(struct visitor *visitor, struct verdict *verdict);
bool relay__ask_peek(struct visitor *visitor, const void *bytes, size_t count,
                     bool eof, struct verdict *verdict);
/* The subject has died, or the deadline passed: tells cancel. Idempotent. */
void relay__question_drop(struct relay *relay, struct question *question);
void relay__tell_open(struct visitor *visitor);
void relay__tell_close(struct visitor *visitor);
void relay__tell_agent_gone(struct relay *relay, const relay_agent_info *agent,
                            int reason);
void relay__tell_proven(struct relay *relay, uint64_t call);
int relay__policy_init(struct relay *relay);
void relay__policy_log(void *data, const relay_log_record *record);

#endif
