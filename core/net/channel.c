/* SPDX-License-Identifier: MIT */
/*
 * Protocol lines over a stream. See channel.h.
 */
#include "net/channel.h"

#include <stdlib.h>
#include <string.h>

#include "net/farewell.h"

static int watch(struct channel *channel) {
  if (channel->stream->reset)
    return 0; /* what is watched already tells its end */
  return relay__stream_watch(
      channel->stream, channel->out_length != 0 ? UV_WRITABLE : UV_READABLE);
}

static void end(struct channel *channel, int error) {
  channel->on_end(channel, error);
}

/* Hands over each whole line. False when the channel was closed meanwhile. */
static bool take_lines(struct channel *channel) {
  struct wire_message message;
  bool closed = false;
  size_t used = 0;
  int count = 0;

  channel->closed_flag = &closed;
  while (used < channel->in_length && channel->out_length == 0) {
    count = relay__wire_parse(&message, channel->in + used,
                              channel->in_length - used);
    if (count <= 0)
      break;
    used += (size_t)count;
    channel->on_line(channel, &message);
    if (closed)
      return false;
  }
  channel->closed_flag = NULL;
  channel->in_length -= used;
  memmove(channel->in, channel->in + used, channel->in_length);
  if (count < 0) {
    end(channel, count);
    return false;
  }
  return true;
}

static void read_lines(struct channel *channel) {
  bool reset;

  do {
    ssize_t count =
        relay__stream_recv(channel->stream, channel->in + channel->in_length,
                           sizeof(channel->in) - channel->in_length);

    reset = channel->stream->reset;
    if (count == UV_EAGAIN)
      return;
    if (count <= 0) {
      end(channel, reset ? channel->stream->error : UV_EOF);
      return;
    }
    channel->in_length += (size_t)count;
    if (!take_lines(channel))
      return;
    if (watch(channel) != 0) {
      end(channel, UV_ENOMEM);
      return;
    }
  } while (reset); /* told once: the end behind the last lines is met now */
}

/* 0, or why the connection is broken. */
static int flush(struct channel *channel) {
  ssize_t count =
      relay__stream_send(channel->stream, channel->out, channel->out_length);

  if (count < 0)
    return count == UV_EAGAIN ? 0 : (int)count;
  channel->out_length -= (size_t)count;
  memmove(channel->out, channel->out + count, channel->out_length);
  if (channel->out_length == 0) { /* idle control connections are many */
    free(channel->out);
    channel->out = NULL;
    channel->out_size = 0;
  }
  return 0;
}

static void on_event(struct stream *stream, int events) {
  struct channel *channel = stream->owner;
  int err = 0;

  if (channel->torn) {
    end(channel, UV_ENOMEM);
    return;
  }
  if (stream->reset && channel->out_length != 0) {
    end(channel, stream->error);
    return;
  }
  if (channel->out_length != 0 && (events & UV_WRITABLE) != 0) {
    err = flush(channel);
    /* Lines that came while the queue was not empty are still to be taken. */
    if (err == 0 && channel->out_length == 0 && !take_lines(channel))
      return;
    if (err == 0)
      err = watch(channel);
    if (err != 0)
      end(channel, err);
  } else if ((events & UV_READABLE) != 0) {
    read_lines(channel);
  }
}

int relay__channel_start(struct channel *channel, struct stream *stream,
                         channel_line_fn on_line, channel_end_fn on_end,
                         void *owner) {
  int err = relay__stream_watch(stream, UV_READABLE);

  if (err != 0)
    return err;
  memset(channel, 0, sizeof(*channel));
  channel->stream = stream;
  channel->on_line = on_line;
  channel->on_end = on_end;
  channel->owner = owner;
  relay__stream_own(stream, on_event, channel);
  return 0;
}

static int reserve(struct channel *channel, size_t length) {
  size_t size = channel->out_size != 0 ? channel->out_size : 1024;
  char *grown;

  while (size < channel->out_length + length)
    size *= 2;
  if (size == channel->out_size)
    return 0;
  grown = realloc(channel->out, size);
  if (grown == NULL)
    return UV_ENOMEM;
  channel->out = grown;
  channel->out_size = size;
  return 0;
}

int relay__channel_send(struct channel *channel, struct wire_line *line,
                        bool urgent) {
  size_t bound = CHANNEL_QUEUE_MAX - (urgent ? 0 : CHANNEL_QUEUE_RESERVE);
  size_t sent = 0;
  int err = relay__wire_end(line);

  if (err != 0)
    return err;
  if (channel->torn)
    return UV_ENOMEM;
  if (channel->out_length + line->length > bound)
    return UV_ENOBUFS;
  if (channel->out_length == 0) {
    ssize_t count =
        relay__stream_send(channel->stream, line->text, line->length);

    if (count > 0)
      sent = (size_t)count;
    if (sent == line->length)
      return watch(channel); /* TLS may have kept some of it */
  }
  /* A dead stream takes it too: its end is told from the loop. */
  err = reserve(channel, line->length - sent);
  if (err != 0 && sent != 0) { /* half a line is out: nothing may follow it */
    channel->torn = true;
    return relay__stream_watch(channel->stream, UV_WRITABLE);
  }
  if (err != 0)
    return err;
  memcpy(channel->out + channel->out_length, line->text + sent,
         line->length - sent);
  channel->out_length += line->length - sent;
  return watch(channel);
}

bool relay__channel_busy(const struct channel *channel) {
  return channel->out_length != 0;
}

static struct stream *release(struct channel *channel) {
  struct stream *stream = channel->stream;

  if (channel->closed_flag != NULL)
    *channel->closed_flag = true;
  free(channel->out);
  memset(channel, 0, sizeof(*channel));
  return stream;
}

void relay__channel_close(struct channel *channel) {
  relay__stream_close(release(channel));
}

void relay__channel_finish(struct channel *channel) {
  struct stream *stream;

  if (channel->stream == NULL)
    return;
  if (channel->out_length != 0)
    flush(channel);
  stream = release(channel);
  if (stream->reset)
    relay__stream_close(stream);
  else
    relay__farewell(stream);
}
