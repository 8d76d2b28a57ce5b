/* SPDX-License-Identifier: MIT */
/*
 * Connections from balancers that are trusted to say whom they stand for: a
 * PROXY header, within one deadline, and not a byte after it taken. Then the
 * connection goes the way of all others, with the addresses it told. On one
 * that is trusted the header is not optional, or a client could leave it out
 * and seem to be the balancer.
 */
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"
#include "wire/proxy.h"

/* A connection that has not told whom it stands for. */
struct preface {
  struct relay *relay;
  struct gate *gate; /* NULL: it came to the agent port */
  struct link link;
  struct stream *stream;
  struct deadline deadline;
  struct sockaddr_storage peer;
  size_t length;
  char bytes[PROXY_HEADER_MAX];
};

static void on_deadline_closed(struct deadline *deadline) {
  free(container_of(deadline, struct preface, deadline));
}

/* It holds what its successor will ask for anew: a visitor the descriptor of
   its data connection, an agent its place among the unproven. */
static void count(struct preface *preface, int by) {
  struct plane *plane = &preface->relay->plane;

  if (preface->gate != NULL && by > 0)
    relay__plane_reserve_descriptor(plane);
  else if (preface->gate != NULL)
    relay__plane_unreserve_descriptor(plane);
  else
    preface->relay->stats.unproven += (uint64_t)(int64_t)by;
}

static struct stream *release(struct preface *preface) {
  struct stream *stream = preface->stream;

  preface->stream = NULL;
  link_remove(&preface->link);
  count(preface, -1);
  relay__deadline_close(&preface->deadline, on_deadline_closed);
  return stream;
}

static void end(struct preface *preface) {
  relay__stream_close(release(preface));
}

void relay__prefaces_end(struct relay *relay, const struct gate *gate) {
  link_each(&relay->prefaces, link, next) {
    struct preface *preface = container_of(link, struct preface, link);

    if (gate == NULL || preface->gate == gate)
      end(preface);
  }
}

static void refuse(struct preface *preface, const char *reason) {
  struct relay *relay = preface->relay;
  char text[ADDRESS_TEXT_MAX];

  relay__address_text((struct sockaddr *)&preface->peer, text, sizeof(text));
  relay->stats.refused_total++;
  relay__log(&relay->logger, RELAY_LOG_WARN, "connection refused",
             LOG_TEXT("from", text), LOG_TEXT("reason", reason));
  end(preface);
}

static void go_on(struct preface *preface, const struct proxy_header *header) {
  struct relay *relay = preface->relay;
  struct gate *gate = preface->gate;
  struct sockaddr_storage from = header->told ? header->from : preface->peer;
  const struct sockaddr *to =
      header->told ? (const struct sockaddr *)&header->to : NULL;
  struct stream *stream = release(preface);

  if (gate != NULL)
    relay__visitor_start(gate, stream, (struct sockaddr *)&from, to);
  else
    relay__handshake_start(relay, stream, (struct sockaddr *)&from);
}

static void on_event(struct stream *stream, int events) {
  struct preface *preface = stream->owner;
  char *at = preface->bytes + preface->length;
  ssize_t seen =
      relay__stream_peek(stream, at, sizeof(preface->bytes) - preface->length);
  struct proxy_header header;
  int length;

  (void)events;
  if (seen == UV_EAGAIN)
    return;
  if (seen <= 0) { /* a port check, most likely */
    end(preface);
    return;
  }
  length = relay__proxy_parse(preface->bytes, preface->length + (size_t)seen,
                              &header);
  if (length < 0) {
    refuse(preface, "no PROXY header from a balancer");
    return;
  }
  if (length > 0)
    seen = length - (ssize_t)preface->length;
  if (relay__stream_recv(stream, at, (size_t)seen) != seen) {
    end(preface);
    return;
  }
  preface->length += (size_t)seen;
  if (length > 0)
    go_on(preface, &header);
}

static void on_deadline(struct deadline *deadline) {
  refuse(container_of(deadline, struct preface, deadline),
         "no PROXY header in time");
}

void relay__preface_start(struct relay *relay, struct gate *gate,
                          struct stream *stream, const struct sockaddr *from) {
  struct preface *preface = calloc(1, sizeof(*preface));

  if (preface == NULL) {
    relay__stream_close(stream);
    return;
  }
  preface->relay = relay;
  preface->gate = gate;
  preface->stream = stream;
  memcpy(&preface->peer, from, relay__address_length(from));
  link_append(&relay->prefaces, &preface->link);
  count(preface, 1);
  relay__deadline_init(&preface->deadline, &relay->plane, on_deadline);
  relay__deadline_set(&preface->deadline, relay->options.handshake_ms);
  relay__stream_own(stream, on_event, preface);
  if (relay__stream_watch(stream, UV_READABLE) != 0)
    end(preface);
}
