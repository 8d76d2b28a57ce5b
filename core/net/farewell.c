/* SPDX-License-Identifier: MIT */
/*
 * See farewell.h.
 */
#include "net/farewell.h"

#include <stdlib.h>

#include "net/container.h"

#define FAREWELL_MS 1000
#define FAREWELL_BYTES (64 * 1024)

struct farewell {
  struct stream *stream;
  struct deadline deadline;
  size_t dropped;
};

static void on_closed(struct deadline *deadline) {
  free(container_of(deadline, struct farewell, deadline));
}

static void end(struct farewell *farewell) {
  relay__stream_close(farewell->stream);
  relay__deadline_close(&farewell->deadline, on_closed);
}

static void on_deadline(struct deadline *deadline) {
  end(container_of(deadline, struct farewell, deadline));
}

static void on_event(struct stream *stream, int events) {
  struct farewell *farewell = stream->owner;
  char bytes[4096];
  ssize_t count = relay__stream_recv(stream, bytes, sizeof(bytes));

  (void)events;
  if (count > 0)
    farewell->dropped += (size_t)count;
  if ((count <= 0 && count != UV_EAGAIN) || farewell->dropped > FAREWELL_BYTES)
    end(farewell);
}

void relay__farewell(struct stream *stream) {
  struct farewell *farewell = calloc(1, sizeof(*farewell));

  if (farewell == NULL) {
    relay__stream_close(stream);
    return;
  }
  farewell->stream = stream;
  relay__deadline_init(&farewell->deadline, stream->plane, on_deadline);
  relay__stream_own(stream, on_event, farewell);
  relay__stream_pardon(stream);
  if (relay__stream_shutdown(stream) != 0 ||
      relay__stream_watch(stream, UV_READABLE) != 0)
    end(farewell);
  else
    relay__deadline_set(&farewell->deadline, FAREWELL_MS);
}
