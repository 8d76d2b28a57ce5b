/* SPDX-License-Identifier: MIT */
/*
 * A visitor, from accept to the end of its pair. See private.h.
 */
#ifndef RELAY_VISITOR_H
#define RELAY_VISITOR_H

#include "relay/private.h"

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

/* ---- preface.c -------------------------------------------------------- */
/* Reads a PROXY header, then starts a visitor of the gate, or a handshake
   (gate NULL), with the addresses it told. Takes the stream over. */
void relay__preface_start(struct relay *relay, struct gate *gate,
                          struct stream *stream, const struct sockaddr *from);
/* Ends those of the gate; NULL: all. */
void relay__prefaces_end(struct relay *relay, const struct gate *gate);

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

#endif
