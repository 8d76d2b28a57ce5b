/* SPDX-License-Identifier: MIT */
/*
 * A channel carries protocol lines over a stream, both ways: what a control
 * connection is, at the relay and at the agent. Its queue of unsent lines is
 * bounded, and while it is not empty nothing more is read, so a peer cannot
 * make this side answer faster than it listens.
 */
#ifndef RELAY_CHANNEL_H
#define RELAY_CHANNEL_H

#include "net/stream.h"
#include "wire/wire.h"

#define CHANNEL_QUEUE_MAX (64 * 1024)
/* Room kept for lines that must not fail for want of it (PONG, BYE). */
#define CHANNEL_QUEUE_RESERVE 4096

struct channel;

/* A line arrived. May close the channel. */
typedef void (*channel_line_fn)(struct channel *channel,
                                const struct wire_message *message);
/* The peer ended or broke the connection, or sent no protocol (RELAY_EPROTO).
   Once. The callee closes the channel. */
typedef void (*channel_end_fn)(struct channel *channel, int error);

struct channel {
  struct stream *stream;
  channel_line_fn on_line;
  channel_end_fn on_end;
  void *owner;
  bool *closed_flag; /* set by close, for a loop that is on the stack */
  bool torn; /* half a line was sent and there was no memory for the rest */
  size_t in_length;
  size_t out_length;
  size_t out_size;
  char *out;
  char in[WIRE_LINE_MAX];
};

/* Takes the stream over on success. */
int relay__channel_start(struct channel *channel, struct stream *stream,
                         channel_line_fn on_line, channel_end_fn on_end,
                         void *owner);

/* Ends the line and sends it, or queues it. 0; UV_ENOBUFS when the queue is at
   its bound (nothing was sent); UV_ENOMEM; RELAY_EPROTO for a line that did not
   fit. `urgent` lines may use the reserve. A broken connection is told by
   on_end, later. */
int relay__channel_send(struct channel *channel, struct wire_line *line,
                        bool urgent);

/* Whether lines are waiting to be sent. */
bool relay__channel_busy(const struct channel *channel);

/* Closes at once, by reset. NULL stream is allowed. */
void relay__channel_close(struct channel *channel);

/* Closes in order: what is queued is sent if the socket takes it now, then FIN;
   what the peer still sends is read and dropped for at most a second, so that
   the last line is not lost to a reset. The channel is free for reuse at
   once. */
void relay__channel_finish(struct channel *channel);

#endif
