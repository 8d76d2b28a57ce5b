/* SPDX-License-Identifier: MIT */
/*
 * Data connections: whose they are, and the visitor that each is for. Where the
 * session is bound to a key they have proven it: by TLS, whose identity is what
 * the line says, or by the line's mac where plain ones were granted. An id is
 * spent by nobody else.
 */
#include "relay/private.h"

static struct session *find_session(struct relay *relay,
                                    const struct wire_message *message) {
  const char *id = relay__wire_get(message, "session");

  return id != NULL ? relay__session_find(relay, id) : NULL;
}

static bool has_mac(const struct session *session,
                    const struct wire_message *message) {
  bool accepts = message->verb == WIRE_ACCEPT;
  const char *what = relay__wire_get(message, accepts ? "id" : "n");
  const char *given = relay__wire_get(message, "mac");
  char mac[BINDING_MAC_SIZE];

  return what != NULL && given != NULL &&
         relay__binding_mac(session->key, accepts ? "ACCEPT" : "WAIT",
                            session->id, what, mac) == 0 &&
         relay__id_equals(mac, given);
}

/* Told of a visitor that is somebody else's. Ids cannot be guessed: it was
   stolen. */
static bool is_anothers(struct relay *relay, const struct session *session,
                        const struct wire_message *message) {
  const char *id = relay__wire_get(message, "id");
  const struct visitor *visitor = message->verb == WIRE_ACCEPT && id != NULL
                                      ? relay__visitor_find(relay, id)
                                      : NULL;

  return visitor != NULL && visitor->agent != 0 &&
         visitor->agent != session->number;
}

const char *relay__data_fault(struct relay *relay, const struct stream *stream,
                              const struct wire_message *message) {
  const struct session *session = find_session(relay, message);

  if (session == NULL)
    return "no such session";
  if (session->bound && stream->tls == NULL) {
    if (!session->plain)
      return "a plain data connection where TLS is due";
    if (!has_mac(session, message))
      return "a data connection without its mac";
  }
  return is_anothers(relay, session, message)
             ? "the id of another agent's visitor"
             : NULL;
}

void relay__data_join(struct relay *relay, struct stream *stream,
                      const struct wire_message *accept, const char *from) {
  const char *id = relay__wire_get(accept, "id");
  struct session *session = find_session(relay, accept);
  struct visitor *visitor = id != NULL ? relay__visitor_find(relay, id) : NULL;
  bool is_joined = visitor != NULL && visitor->phase == VISITOR_JOINED;

  if (session != NULL && visitor != NULL && !is_joined &&
      visitor->agent == session->number) {
    relay__visitor_join(visitor, stream);
    return;
  }
  relay->stats.refused_total++;
  relay__stream_close(stream);
  /* An id used twice: the pair it aims at stays as it is. */
  if (session != NULL && id != NULL && !is_joined)
    relay__session_gone(session, id, RELAY_EGONE);
  /* No fault, since its visitor may just have left; or one that was said in
     plain is said again, by anybody, as often as they like. */
  relay__complain_at(relay, RELAY_LOG_INFO, from,
                     session == NULL ? "no such session" : "no such visitor");
}
