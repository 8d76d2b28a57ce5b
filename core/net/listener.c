/* SPDX-License-Identifier: MIT */
/*
 * Listening and accepting. See listener.h.
 */
#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/container.h"
#include "wire/address.h"

/* Accepted per turn of the loop, at most. */
#define ACCEPT_BUDGET 16
/* When the system is out of descriptors or memory, look again after this. */
#define RETRY_MS 100

static void on_poll(uv_poll_t *poll, int status, int events);

static int accept_one(int fd, struct sockaddr_storage *from) {
  socklen_t length = sizeof(*from);

  memset(from, 0, sizeof(*from));
#ifdef __linux__
  return accept4(fd, (struct sockaddr *)from, &length,
                 SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
  int accepted = accept(fd, (struct sockaddr *)from, &length);

  if (accepted >= 0)
    fcntl(accepted, F_SETFD, FD_CLOEXEC);
  return accepted;
#endif
}

static void on_retry(struct deadline *deadline) {
  struct listener *listener = container_of(deadline, struct listener, retry);

  relay__listener_resume(listener);
}

/* Whether accept4 failed for that one connection only. */
static bool is_passing(int error) {
  switch (error) {
  case EINTR:
  case ECONNABORTED:
  case EPROTO:
  case ENETDOWN:
  case ENOPROTOOPT:
  case EHOSTUNREACH:
  case ENETUNREACH:
  case EPERM: /* a firewall's rule */
    return true;
  default:
    return false;
  }
}

/* False when the turn is over. */
static bool accept_next(struct listener *listener) {
  struct plane *plane = listener->plane;
  struct sockaddr_storage from;
  struct stream *stream;
  int fd, err;

  if (listener->admit != NULL && !listener->admit(listener)) {
    relay__listener_pause(listener);
    return false;
  }
  fd = accept_one(listener->fd, &from);
  if (fd < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK)
      return false;
    if (is_passing(errno))
      return true;
    /* The connection stays in the backlog and is taken later. */
    err = -errno;
    relay__listener_pause(listener);
    relay__deadline_set(&listener->retry, RETRY_MS);
    if (plane->on_short != NULL)
      plane->on_short(plane, err);
    return false;
  }
#ifndef __linux__ /* Linux hands the listener's options down */
  relay__stream_tune(plane, fd);
#endif
  if (relay__stream_open(&stream, plane, fd) != 0)
    return true;
  relay__address_unmap(&from);
  listener->on_accept(listener, stream, (struct sockaddr *)&from);
  return true;
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  struct listener *listener = container_of(poll, struct listener, poll);
  int budget = ACCEPT_BUDGET;

  (void)events;
  if (status < 0) /* libuv stopped the handle: start it again, later */
    relay__deadline_set(&listener->retry, RETRY_MS);
  /* A callback may pause or close the listener. */
  while (budget-- > 0 && listener->fd >= 0 && !listener->paused)
    if (!accept_next(listener))
      break;
}

static int open_socket(struct listener *listener, struct plane *plane,
                       const struct sockaddr *address) {
  int on = 1;
  int off = 0;
  int err;
  socklen_t length = sizeof(listener->address);

  listener->fd = socket(address->sa_family, SOCK_STREAM, 0);
  if (listener->fd < 0)
    return -errno;
  fcntl(listener->fd, F_SETFD, FD_CLOEXEC);
  if (setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0)
    return -errno;
  if (address->sa_family == AF_INET6 &&
      setsockopt(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)))
    return -errno;
  err = relay__stream_tune(plane, listener->fd);
  if (err != 0)
    return err;
  if (bind(listener->fd, address, relay__address_length(address)) != 0 ||
      listen(listener->fd, SOMAXCONN) != 0 ||
      getsockname(listener->fd, (struct sockaddr *)&listener->address,
                  &length) != 0)
    return -errno;
  return uv_poll_init(plane->loop, &listener->poll, listener->fd);
}

int relay__listener_open(struct listener *listener, struct plane *plane,
                         const struct sockaddr *address,
                         listener_admit_fn admit, listener_accept_fn on_accept,
                         void *owner) {
  int err;

  memset(listener, 0, sizeof(*listener));
  err = open_socket(listener, plane, address);
  if (err != 0) {
    if (listener->fd >= 0)
      close(listener->fd);
    listener->fd = -1;
    return err;
  }
  listener->plane = plane;
  listener->admit = admit;
  listener->on_accept = on_accept;
  listener->owner = owner;
  listener->paused = true;
  relay__plane_retain(plane);
  relay__plane_take_descriptors(plane, 1);
  relay__deadline_init(&listener->retry, plane, on_retry);
  relay__listener_resume(listener);
  return 0;
}

void relay__listener_pause(struct listener *listener) {
  if (listener->paused)
    return;
  listener->paused = true;
  uv_poll_stop(&listener->poll);
}

void relay__listener_resume(struct listener *listener) {
  if (listener->fd < 0)
    return;
  relay__deadline_clear(&listener->retry);
  listener->paused = false;
  if (uv_poll_start(&listener->poll, UV_READABLE, on_poll) != 0) {
    listener->paused = true;
    relay__deadline_set(&listener->retry, RETRY_MS);
  }
}

static void on_retry_closed(struct deadline *deadline) {
  struct listener *listener = container_of(deadline, struct listener, retry);

  if (listener->on_closed != NULL)
    listener->on_closed(listener);
}

static void on_poll_closed(uv_handle_t *handle) {
  struct listener *listener = container_of(handle, struct listener, poll);
  struct plane *plane = listener->plane;

  relay__deadline_close(&listener->retry, on_retry_closed);
  relay__plane_release(plane);
}

void relay__listener_close(struct listener *listener,
                           void (*on_closed)(struct listener *listener)) {
  listener->on_closed = on_closed;
  relay__deadline_clear(&listener->retry);
  uv_close((uv_handle_t *)&listener->poll, on_poll_closed);
  close(listener->fd);
  listener->fd = -1;
  relay__plane_give_descriptors(listener->plane, 1);
}

static bool has_ipv6(void) {
  int fd = socket(AF_INET6, SOCK_STREAM, 0);
  struct sockaddr_in6 any = {.sin6_family = AF_INET6};
  bool works;

  if (fd < 0)
    return false;
  works = bind(fd, (struct sockaddr *)&any, sizeof(any)) == 0;
  close(fd);
  return works;
}

int relay__listener_host(const char *host, unsigned port,
                         struct sockaddr_storage *address) {
  if (host == NULL)
    host = has_ipv6() ? "::" : "0.0.0.0";
  return relay__address_parse_host(host, port, address);
}
