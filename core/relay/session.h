/* SPDX-License-Identifier: MIT */
/*
 * An agent's control connection, and its data connections. See private.h.
 */
#ifndef RELAY_SESSION_H
#define RELAY_SESSION_H

#include "relay/private.h"

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

/* A data connection ahead of need. */
struct waiting {
  struct session *session;
  struct link link;
  struct stream *stream;
  uint64_t since_ms;
};

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

/* ---- data.c ----------------------------------------------------------- */
/* Why this line comes from nobody of ours: there is no such session, it has a
   key that was not proven, or the visitor is another's; static. NULL: it does
   not. */
const char *relay__data_fault(struct relay *relay, const struct stream *stream,
                              const struct wire_message *message);
/* Takes the stream over. */
void relay__data_join(struct relay *relay, struct stream *stream,
                      const struct wire_message *accept, const char *from);

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

#endif
