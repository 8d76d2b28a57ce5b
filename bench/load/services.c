/* SPDX-License-Identifier: MIT */
/*
 * What stands at the far end, and what stands for the way there. The echo is
 * for small messages: where a peer does not read, it waits for that peer alone.
 * A delayed connection is held up as a real one is: what was sent arrives half
 * a round trip later, and its first byte not before the handshake is over.
 */
#include "load.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 256
#define BLOCK_BYTES (64 * 1024)

/* ---- echo -----------------------------------------------------------------
 */

static bool send_all(int fd, const char *bytes, size_t count) {
  while (count > 0) {
    ssize_t sent = send(fd, bytes, count, 0);
    if (sent > 0) {
      bytes += sent;
      count -= (size_t)sent;
    } else if (errno == EAGAIN) {
      struct pollfd ready = {.fd = fd, .events = POLLOUT};
      poll(&ready, 1, 1000);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

/* Sends back what is there; false when the connection is over. */
static bool echo_some(int fd) {
  static char block[BLOCK_BYTES];
  ssize_t count = recv(fd, block, sizeof block, 0);

  if (count > 0)
    return send_all(fd, block, (size_t)count);
  return count < 0 && (errno == EAGAIN || errno == EINTR);
}

int echo_main(char **arguments) {
  int listener = listen_at("127.0.0.1", "0"), poll_fd = new_poll();
  struct epoll_event events[EVENTS];

  (void)arguments;
  watch(poll_fd, listener, EPOLLIN, (void *)(intptr_t)listener);
  printf("%d\n", port_of(listener));
  for (;;) {
    int count = epoll_wait(poll_fd, events, EVENTS, -1);
    for (int i = 0; i < count; i++) {
      int fd = (int)(intptr_t)events[i].data.ptr, accepted;
      if (fd != listener) {
        if (!echo_some(fd))
          close(fd);
      } else {
        while ((accepted = accept_from(listener)) >= 0)
          watch(poll_fd, accepted, EPOLLIN, (void *)(intptr_t)accepted);
      }
    }
  }
}

/* ---- delay ----------------------------------------------------------------
 */

/* Bytes on their way; none is a FIN. */
struct chunk {
  struct chunk *next;
  double due;
  size_t at, count;
  char bytes[];
};

struct end {
  struct link *link;
  int fd; /* -1: not connected yet */
  bool shut;
  struct chunk *first, **last; /* what is on its way to it */
};

/* Two ends of a delayed connection: who connected, and where it leads. */
struct link {
  struct link *next;
  double open_at; /* when the far end sees the connection */
  bool dead;
  struct end near, far;
};

static struct {
  int poll_fd;
  double half; /* seconds of a way */
  struct sockaddr_in to;
  struct link *links;
} delay;

static void start_link(int fd) {
  struct link *link = calloc(1, sizeof *link);

  if (link == NULL)
    fail("calloc");
  link->near.link = link->far.link = link;
  link->near.fd = fd;
  link->far.fd = -1;
  link->near.last = &link->near.first;
  link->far.last = &link->far.first;
  link->open_at = now() + 3 * delay.half;
  link->next = delay.links;
  delay.links = link;
  watch(delay.poll_fd, fd, EPOLLIN, &link->near);
}

static void open_far(struct link *link) {
  link->far.fd = connect_to(&delay.to);
  if (link->far.fd < 0)
    link->dead = true;
  else
    watch(delay.poll_fd, link->far.fd, EPOLLIN, &link->far);
}

static void take_in(struct end *from) {
  struct link *link = from->link;
  struct end *to = from == &link->near ? &link->far : &link->near;
  static char block[BLOCK_BYTES];
  ssize_t count = recv(from->fd, block, sizeof block, 0);
  struct chunk *chunk;

  if (count < 0) {
    link->dead = link->dead || (errno != EAGAIN && errno != EINTR);
    return;
  }
  chunk = malloc(sizeof *chunk + (size_t)count);
  if (chunk == NULL)
    fail("malloc");
  memcpy(chunk->bytes, block, (size_t)count);
  *chunk = (struct chunk){.due = now() + delay.half, .count = (size_t)count};
  if (to == &link->far && chunk->due < link->open_at)
    chunk->due = link->open_at;
  *to->last = chunk;
  to->last = &chunk->next;
  if (count == 0) /* or it would be told for ever */
    rewatch(delay.poll_fd, from->fd, 0, from);
}

/* False when the end takes no more for now. */
static bool give_out(struct end *to) {
  struct chunk *chunk = to->first;
  ssize_t count;

  if (chunk->count == 0) {
    shutdown(to->fd, SHUT_WR);
    to->shut = true;
  }
  while (chunk->at < chunk->count) {
    count = send(to->fd, chunk->bytes + chunk->at, chunk->count - chunk->at, 0);
    if (count < 0 && errno != EAGAIN && errno != ENOTCONN)
      to->link->dead = true;
    if (count < 0)
      return false;
    chunk->at += (size_t)count;
  }
  to->first = chunk->next;
  if (to->first == NULL)
    to->last = &to->first;
  free(chunk);
  return true;
}

/* Does what is due; when the next thing is. An end that takes nothing is asked
   again a millisecond later. */
static double serve_end(struct end *to, double time, double next) {
  while (!to->link->dead && to->first != NULL && to->first->due <= time)
    if (!give_out(to))
      return time + 0.001;
  return to->first != NULL && to->first->due < next ? to->first->due : next;
}

static void end_link(struct link *link) {
  struct end *ends[] = {&link->near, &link->far};
  struct linger reset = {1, 0};

  for (int i = 0; i < 2; i++) {
    while (ends[i]->first != NULL) {
      struct chunk *chunk = ends[i]->first;
      ends[i]->first = chunk->next;
      free(chunk);
    }
    if (ends[i]->fd < 0)
      continue;
    if (link->dead)
      setsockopt(ends[i]->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(ends[i]->fd);
  }
  free(link);
}

static double serve_links(void) {
  double time = now(), next = time + 1;
  struct link **at = &delay.links;

  while (*at != NULL) {
    struct link *link = *at;
    if (link->far.fd < 0 && link->open_at <= time)
      open_far(link);
    if (link->far.fd < 0)
      next = link->open_at < next ? link->open_at : next;
    else
      next = serve_end(&link->far, time, next);
    next = serve_end(&link->near, time, next);
    if (link->dead || (link->near.shut && link->far.shut)) {
      *at = link->next;
      end_link(link);
    } else {
      at = &link->next;
    }
  }
  return next;
}

int delay_main(char **arguments) {
  int listener = listen_at(arguments[0], arguments[1]), fd;
  struct epoll_event events[EVENTS];

  delay.poll_fd = new_poll();
  delay.to = address_of("127.0.0.1", arguments[2]);
  delay.half = atof(arguments[3]) / 2000;
  watch(delay.poll_fd, listener, EPOLLIN, NULL);
  printf("%d\n", port_of(listener));
  for (;;) {
    double wait = serve_links() - now();
    long ns = wait > 0 ? (long)(wait * 1e9) : 0;
    struct timespec time = {ns / 1000000000, ns % 1000000000};
    int count = epoll_pwait2(delay.poll_fd, events, EVENTS, &time, NULL);
    for (int i = 0; i < count; i++)
      if (events[i].data.ptr != NULL)
        take_in(events[i].data.ptr);
      else if ((fd = accept_from(listener)) >= 0)
        start_link(fd);
  }
}
