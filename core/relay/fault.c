/* SPDX-License-Identifier: MIT */
/*
 * Faults of those who have proven nothing: noted where they come from, logged,
 * and answered as late as their source deserves.
 */
#include "net/farewell.h"
#include "relay/private.h"

void relay__refuse(struct relay *relay, struct stream *stream, int error,
                   const char *reason) {
  bool final = error == RELAY_EPROTO || error == RELAY_EVERSION ||
               error == RELAY_EDENIED || error == RELAY_EPORT_REFUSED;
  struct wire_line line;

  relay->stats.refused_total++;
  if (stream->tls != NULL && stream->tls->phase != TLS_OPEN) {
    relay__farewell(stream); /* TLS has words of its own for it */
    return;
  }
  relay__wire_begin(&line, WIRE_ERR);
  relay__wire_add(&line, "code", relay_error_name(error));
  relay__wire_add(&line, "final", final ? "yes" : "no");
  if (!final)
    relay__wire_add_number(&line, "retry", 1);
  relay__wire_add_text(&line, "reason",
                       reason != NULL ? reason : relay_strerror(error));
  if (relay__wire_end(&line) == 0)
    relay__stream_send(stream, line.text, line.length);
  if (stream->reset)
    relay__stream_close(stream);
  else
    relay__farewell(stream);
}

uint64_t relay__fault_note(struct relay *relay, struct source *source,
                           const char *from, const char *what) {
  uint64_t delay = 0;

  relay__complain(relay, from, what);
  if (source != NULL)
    delay =
        relay__source_fault(&relay->penalties, source, relay__now_ms(relay));
  if (delay == PENALTY_REFUSE && !source->told) {
    source->told = true;
    relay__complain(relay, from,
                    "too many faults: it gets no answer for a while");
  }
  return delay;
}

/* Takes over the stream, and a hold of the source if there is a delay. */
static void answer(struct relay *relay, struct stream *stream,
                   struct source *source, uint64_t delay, int error,
                   const char *reason) {
  if (delay != 0 && relay->closing)
    delay = PENALTY_REFUSE; /* nobody would wait for it */
  if (delay == PENALTY_REFUSE) {
    relay->stats.refused_total++;
    relay__source_release(&relay->penalties, source);
    relay__stream_close(stream);
  } else if (delay != 0) {
    relay__refusal_start(relay, source, stream, delay, error, reason);
  } else {
    relay__refuse(relay, stream, error, reason);
  }
}

void relay__handshake_fail(struct handshake *handshake, int error,
                           const char *reason, const char *what) {
  struct relay *relay = handshake->relay;
  struct source *source = handshake->source;
  uint64_t now = relay__now_ms(relay);
  uint64_t left = handshake->due_ms > now ? handshake->due_ms - now : 0;
  uint64_t delay = relay__fault_note(relay, source, handshake->from, what);

  if (delay != PENALTY_REFUSE && (delay > left || handshake->stream->reset))
    delay = handshake->stream->reset ? 0 : left;
  if (delay != 0)
    source->held++;
  answer(relay, relay__handshake_release(handshake), source, delay, error,
         reason);
}

void relay__refuse_stranger(struct relay *relay, struct stream *stream,
                            const char *from, int error, const char *what) {
  char host[ADDRESS_HOST_MAX] = "";
  struct sockaddr_storage address;
  struct source *source = NULL;
  unsigned port = 0;
  uint64_t delay;

  relay__address_split(from, host, sizeof(host), &port);
  if (relay__address_parse_host(host, port, &address) == 0)
    source = relay__source_hold(&relay->penalties,
                                (const struct sockaddr *)&address);
  delay = relay__fault_note(relay, source, from, what);
  answer(relay, stream, source, delay, error, NULL);
  if (delay == 0 && source != NULL)
    relay__source_release(&relay->penalties, source);
}
