/* SPDX-License-Identifier: MIT */
/*
 * A connection from its first byte until it has said what it is, who it says
 * it is, and what becomes of it if that is not so. See private.h.
 */
#ifndef RELAY_HANDSHAKE_H
#define RELAY_HANDSHAKE_H

#include "relay/private.h"

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
  bool begun;          /* like TLS, and no more of it is there */
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

/* ---- proof.c ---------------------------------------------------------- */
/* Where keys are known the first bytes tell whether one is to be proven: those
   of a ClientHello. Nothing is spent on anything else. */
enum proof_look { PROOF_NONE, PROOF_UNSEEN, PROOF_BEGUN, PROOF_THERE };
enum proof_look relay__proof_look(struct handshake *handshake);
/* It is there. May end the handshake. */
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
/* Whether it is a data connection, as far as it has said so: what its agent
   reads there is the visitor's, and an end would be the visitor's end. */
bool relay__claim_is_data(const struct handshake *handshake);
/* Why its TLS failed with this error, for the log. Static. */
const char *relay__claim_fault(const struct proof *proof, int error);

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
/* The same of what may happen to the honest: at that level. */
void relay__complain_at(struct relay *relay, relay_log_level level,
                        const char *from, const char *what);
/* Whether a refusal in words that vary, of who has proven nothing, may have a
   record now: one a second of all of them. */
bool relay__denial_is_due(struct relay *relay);

#endif
