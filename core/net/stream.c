/* SPDX-License-Identifier: MIT */
/*
 * Streams: owned sockets, their bytes, their end. See stream.h.
 */
#include "net/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net/container.h"
#include "net/tls.h"
#include "wire/address.h"

#ifdef __linux__
#include <linux/sockios.h>
#endif

/* EPIPE is what the kernel calls a reset that follows a FIN. */
void relay__stream_cut(struct stream *stream, int error) {
  if (stream->reset)
    return;
  stream->reset = true;
  stream->error = error != 0 && error != UV_EPIPE ? error : UV_ECONNRESET;
}

/* The socket's pending error, which reading clears: so it is kept here. */
static bool find_reset(struct stream *stream) {
  int error = 0;
  socklen_t length = sizeof(error);

  if (!stream->reset &&
      (getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 ||
       error != 0))
    relay__stream_cut(stream, -error);
  return stream->reset;
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  struct stream *stream = container_of(poll, struct stream, poll);

  if (status < 0) { /* POLLERR: libuv has stopped the handle */
    stream->watched = 0;
    if (!find_reset(stream))
      relay__stream_cut(stream, 0);
    events = UV_READABLE | UV_WRITABLE;
  } else if (events == UV_PRIORITIZED) {
    /* An urgent byte, or both ends are shut while bytes are unread: the floor
       would report it for ever, behind a reset too. Deadlines must do until it
       is read. */
    stream->watched = 0;
    uv_poll_stop(poll);
    if (!find_reset(stream)) {
      stream->urgent = true;
      return;
    }
    events = UV_READABLE | UV_WRITABLE;
  } else if (stream->tls != NULL) {
    events = relay__tls_event(stream->tls, events);
  }
  events &= UV_READABLE | UV_WRITABLE;
  if (events != 0)
    stream->on_event(stream, events);
}

static void on_poll_closed(uv_handle_t *handle) {
  struct stream *stream = container_of(handle, struct stream, poll);
  struct plane *plane = stream->plane;

  free(stream);
  relay__plane_release(plane);
}

int relay__stream_open(struct stream **out, struct plane *plane, int fd) {
  struct stream *stream = calloc(1, sizeof(*stream));
  int err = UV_ENOMEM;

  if (stream != NULL) {
    stream->plane = plane;
    stream->fd = fd;
    err = relay__stream_attach(stream);
  }
  if (err != 0) {
    free(stream);
    close(fd);
    return err;
  }
  relay__plane_take_descriptors(plane, 1);
  *out = stream;
  return 0;
}

int relay__stream_attach(struct stream *stream) {
  int err = 0;

  if (stream->attached)
    return 0;
  err = uv_poll_init(stream->plane->loop, &stream->poll, stream->fd);
  if (err != 0)
    return err;
  stream->attached = true;
  relay__plane_retain(stream->plane);
  if (stream->tls != NULL)
    relay__tls_attach(stream->tls);
  return 0;
}

struct stream *relay__stream_move(struct stream *stream, struct plane *to) {
  struct stream *moved = malloc(sizeof(*moved));

  if (moved != NULL) {
    *moved = *stream;
    moved->plane = to;
    moved->watched = 0;
    moved->attached = false;
  }
  if (moved != NULL && stream->tls != NULL &&
      relay__tls_move(stream->tls, moved) != 0) {
    free(moved);
    moved = NULL;
  }
  if (moved == NULL) {
    relay__stream_close(stream);
    return NULL;
  }
  stream->tls = NULL;
  stream->fd = -1;
  /* Takes it out of the loop's epoll at once: only memory is left to free. */
  uv_close((uv_handle_t *)&stream->poll, on_poll_closed);
  return moved;
}

static int new_socket(int family) {
#ifdef SOCK_CLOEXEC
  return socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
#else
  int fd = socket(family, SOCK_STREAM, 0);

  if (fd >= 0)
    fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
#endif
}

int relay__stream_connect(struct stream **out, struct plane *plane,
                          const struct sockaddr *address, socklen_t length) {
  struct stream *stream;
  int fd = new_socket(address->sa_family);
  int err;

  if (fd < 0)
    return -errno;
  err = relay__stream_tune_dial(plane, fd, address->sa_family);
  if (err != 0) {
    close(fd);
    return err;
  }
  err = relay__stream_open(&stream, plane, fd);
  if (err != 0)
    return err;
  if (connect(fd, address, length) != 0 && errno != EINPROGRESS)
    err = -errno;
  if (err == 0)
    err = relay__stream_watch(stream, UV_WRITABLE);
  if (err != 0) {
    relay__stream_close(stream);
    return err;
  }
  *out = stream;
  return 0;
}

int relay__stream_connected(struct stream *stream) {
  return find_reset(stream) ? stream->error : 0;
}

void relay__stream_own(struct stream *stream, stream_event_fn on_event,
                       void *owner) {
  stream->on_event = on_event;
  stream->owner = owner;
}

int relay__stream_watch(struct stream *stream, int events) {
  int err;

  if (stream->reset) { /* all it could still tell is told, again and again */
    if (stream->watched != 0)
      uv_poll_stop(&stream->poll);
    stream->watched = 0;
    return 0;
  }
  if (stream->tls != NULL)
    events = relay__tls_watch(stream->tls, events);
  if (events == 0 && !stream->urgent)
    events = UV_PRIORITIZED;
  if (events == stream->watched)
    return 0;
  if (events == 0)
    err = uv_poll_stop(&stream->poll);
  else
    err = uv_poll_start(&stream->poll, events, on_poll);
  if (err == 0)
    stream->watched = events;
  return err;
}

void relay__stream_close(struct stream *stream) {
  struct plane *plane;

  if (stream == NULL)
    return;
  plane = stream->plane;
  if (stream->tls != NULL)
    relay__tls_close(stream->tls);
  stream->tls = NULL;
  if (stream->shut && relay__stream_is_beyond_reset(stream))
    relay__stream_pardon(stream);
  if (stream->attached)
    uv_close((uv_handle_t *)&stream->poll, on_poll_closed);
  close(stream->fd);
  stream->fd = -1;
  if (!stream->attached)
    free(stream);
  relay__plane_give_descriptors(plane, 1);
}

void relay__stream_pardon(struct stream *stream) {
  static const struct linger close_in_order = {0, 0};

  setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &close_in_order,
             sizeof(close_in_order));
  stream->shut = false;
}

int relay__stream_shutdown(struct stream *stream) {
  int err = stream->tls != NULL ? relay__tls_shutdown(stream->tls) : 0;

  if (err != 0)
    return err;
  if (shutdown(stream->fd, SHUT_WR) == 0) {
    stream->shut = true;
    return 0;
  }
  err = -errno;
  find_reset(stream);
  relay__stream_cut(stream, err);
  return err;
}

size_t relay__stream_unsent(struct stream *stream) {
  size_t kept = stream->tls != NULL ? stream->tls->out_length : 0;
#ifdef SIOCOUTQ
  int unsent = 0;

  if (!stream->reset && ioctl(stream->fd, SIOCOUTQ, &unsent) == 0)
    return kept + (size_t)unsent;
#endif
  return stream->reset ? 0 : kept;
}

size_t relay__stream_room(struct stream *stream) {
#ifdef SIOCOUTQNSD
  int unsent = 0;

  if (ioctl(stream->fd, SIOCOUTQNSD, &unsent) == 0 &&
      unsent < STREAM_UNSENT_BYTES)
    return (size_t)(STREAM_UNSENT_BYTES - unsent);
#else
  (void)stream;
#endif
  return 0;
}

/* What a system call's result means for the stream. */
static ssize_t judge(struct stream *stream, ssize_t count, bool reading) {
  if (count > 0) {
    if (reading)
      stream->urgent = false;
    return count;
  }
  if (count == 0)
    return find_reset(stream) ? stream->error : 0;
  if (errno == EAGAIN || errno == EWOULDBLOCK)
    return UV_EAGAIN;
  relay__stream_cut(stream, -errno);
  return stream->error;
}

/* Nothing will come any more over a connection that is dead. */
static ssize_t no_more(const struct stream *stream, ssize_t count) {
  return count == UV_EAGAIN && stream->reset ? stream->error : count;
}

ssize_t relay__stream_recv_raw(struct stream *stream, void *bytes,
                               size_t size) {
  ssize_t count;

  do
    count = recv(stream->fd, bytes, size, MSG_DONTWAIT);
  while (count < 0 && errno == EINTR);
  return no_more(stream, judge(stream, count, true));
}

ssize_t relay__stream_recv(struct stream *stream, void *bytes, size_t size) {
  return stream->tls != NULL ? relay__tls_recv(stream->tls, bytes, size)
                             : relay__stream_recv_raw(stream, bytes, size);
}

ssize_t relay__stream_peek(struct stream *stream, void *bytes, size_t size) {
  ssize_t count;

  if (stream->tls != NULL)
    return relay__tls_peek(stream->tls, bytes, size);
  do
    count = recv(stream->fd, bytes, size, MSG_DONTWAIT | MSG_PEEK);
  while (count < 0 && errno == EINTR);
  return no_more(stream, judge(stream, count, false));
}

ssize_t relay__stream_send_raw(struct stream *stream, const void *bytes,
                               size_t size) {
  ssize_t count;

  do
    count = send(stream->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (count < 0 && errno == EINTR);
  return judge(stream, count, false);
}

ssize_t relay__stream_send(struct stream *stream, const void *bytes,
                           size_t size) {
  return stream->tls != NULL ? relay__tls_send(stream->tls, bytes, size)
                             : relay__stream_send_raw(stream, bytes, size);
}

#ifdef __linux__
static ssize_t splice_bytes(int from, int to, size_t size) {
  ssize_t count;

  do
    count =
        splice(from, NULL, to, NULL, size, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
  while (count < 0 && errno == EINTR);
  return count;
}
#else
static ssize_t splice_bytes(int from, int to, size_t size) {
  (void)from, (void)to, (void)size;
  errno = EINVAL;
  return -1;
}
#endif

ssize_t relay__stream_splice_in(struct stream *stream, int pipe, size_t size) {
  ssize_t count;

  if (stream->tls != NULL)
    return UV_EINVAL;
  count = splice_bytes(stream->fd, pipe, size);
  if (count < 0 && errno == EINVAL)
    return UV_EINVAL; /* this kind of socket cannot: the caller copies */
  return count == 0 ? 0 : judge(stream, count, true);
}

ssize_t relay__stream_splice_out(struct stream *stream, int pipe, size_t size) {
  if (stream->tls != NULL)
    return UV_EINVAL;
  return judge(stream, splice_bytes(pipe, stream->fd, size), false);
}

int relay__stream_read_line(struct stream *stream, char *line, size_t *length,
                            size_t size) {
  char *at = line + *length;
  ssize_t count;
  char *end;

  if (*length == size)
    return UV_EMSGSIZE;
  count = relay__stream_peek(stream, at, size - *length);
  if (count <= 0)
    return count == 0 ? UV_EOF : count == UV_EAGAIN ? 0 : (int)count;
  end = memchr(at, '\n', (size_t)count);
  if (end != NULL)
    count = end + 1 - at;
  count = relay__stream_recv(stream, at, (size_t)count);
  if (count <= 0)
    return count == 0 ? UV_EOF : count == UV_EAGAIN ? 0 : (int)count;
  *length += (size_t)count;
  /* What was peeked at is what was read: this socket has one reader. */
  if (line[*length - 1] == '\n')
    return 1;
  if (*length == size)
    return UV_EMSGSIZE;
  /* A reset is told once: what is left before it is taken now. So is what TLS
     has inside, of which poll does not tell. */
  return stream->reset || stream->tls != NULL
             ? relay__stream_read_line(stream, line, length, size)
             : 0;
}
