/* SPDX-License-Identifier: MIT */
/*
 * See farewell.h.
 */
#include "net/farewell.h"

#include <stdlib.h>

#include "net/container.h"
#include "net/tls.h"

#define FAREWELL_MS 1000
#define FAREWELL_BYTES (64 * 1024)

struct farewell {
  struct stream *stream;
  struct deadline deadline;
  bool said; /* our end */
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

/* Our end, as soon as what TLS has before it is sent. 0, or why not. */
static int say_end(struct farewell *farewell) {
  struct stream *stream = farewell->stream;
  int err = farewell->said ? 0 : relay__stream_shutdown(stream);

  farewell->said = err == 0;
  if (err != 0 && err != UV_EAGAIN)
    return err;
  return relay__stream_watch(
      stream, farewell->said ? UV_READABLE : UV_READABLE | UV_WRITABLE);
}

static void on_event(struct stream *stream, int events) {
  struct farewell *farewell = stream->owner;
  char bytes[4096];
  ssize_t count = relay__stream_recv(stream, bytes, sizeof(bytes));

  (void)events;
  if (say_end(farewell) != 0) {
    end(farewell);
    return;
  }
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
  relay__tls_drop(stream); /* unless it came to something */
  if (say_end(farewell) != 0)
    end(farewell);
  else
    relay__deadline_set(&farewell->deadline, FAREWELL_MS);
}
