/* SPDX-License-Identifier: MIT */
/*
 * Visitors: many short ones, or some that stay and talk. Behind what they
 * connect to there is an echo. One that fails is counted.
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
#include <unistd.h>

#define EVENTS 256
#define PATIENCE_MS 5000
#define OPENING_S 20
#define MESSAGE_BYTES 64

/* ---- short connections ----------------------------------------------------
 */

struct visitor {
  int fd;
  bool said;
};

static struct {
  int poll_fd;
  struct sockaddr_in to;
  long served, failed;
} crowd;

static void come(struct visitor *visitor) {
  while ((visitor->fd = connect_to(&crowd.to)) < 0) {
    crowd.failed++;
    poll(NULL, 0, 1);
  }
  visitor->said = send(visitor->fd, "x", 1, 0) == 1;
  watch(crowd.poll_fd, visitor->fd, visitor->said ? EPOLLIN : EPOLLOUT,
        visitor);
}

static void go_on(struct visitor *visitor) {
  char byte;

  if (!visitor->said) {
    visitor->said = send(visitor->fd, "x", 1, 0) == 1;
    if (visitor->said) {
      rewatch(crowd.poll_fd, visitor->fd, EPOLLIN, visitor);
      return;
    }
    crowd.failed++;
  } else if (recv(visitor->fd, &byte, 1, 0) == 1) {
    crowd.served++;
  } else {
    crowd.failed++;
  }
  close(visitor->fd);
  come(visitor);
}

/* Prints how many were served, in how many seconds, and how many failed. */
int connects_main(char **arguments) {
  int at_a_time = atoi(arguments[2]);
  struct visitor *visitors = calloc((size_t)at_a_time, sizeof *visitors);
  struct epoll_event events[EVENTS];
  double began = now(), end = began + atof(arguments[1]);

  if (visitors == NULL)
    fail("calloc");
  crowd.to = address_of("127.0.0.1", arguments[0]);
  crowd.poll_fd = new_poll();
  for (int i = 0; i < at_a_time; i++)
    come(&visitors[i]);
  while (now() < end) {
    int count = epoll_wait(crowd.poll_fd, events, EVENTS, 100);
    for (int i = 0; i < count; i++)
      go_on(events[i].data.ptr);
  }
  printf("%ld %.6f %ld\n", crowd.served, now() - began, crowd.failed);
  free(visitors);
  return 0;
}

/* ---- connections that stay ------------------------------------------------
 */

static struct {
  struct sockaddr_in to;
  struct talker {
    int fd;
    size_t left; /* bytes of the answer that are not there yet */
    double began;
  } * talkers;
  int open, room;
  double *times; /* seconds of each round trip of a measurement */
  size_t trips, size;
} party;

static void note(double time) {
  if (party.trips == party.size) {
    party.size = party.size == 0 ? 4096 : party.size * 2;
    party.times = realloc(party.times, party.size * sizeof *party.times);
    if (party.times == NULL)
      fail("realloc");
  }
  party.times[party.trips++] = time;
}

static int compare(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;

  return (a > b) - (a < b);
}

static double share(double part) {
  size_t at = (size_t)((double)party.trips * part);

  return party.trips == 0 ? 0 : party.times[at < party.trips ? at : at - 1];
}

/* "COUNT SECONDS P50 P99", the last two in microseconds. */
static void tell_trips(double seconds) {
  qsort(party.times, party.trips, sizeof *party.times, compare);
  printf("%zu %.6f %.2f %.2f\n", party.trips, seconds, share(0.5) * 1e6,
         share(0.99) * 1e6);
  party.trips = 0;
}

static bool wait_for(int fd, short events) {
  struct pollfd ready = {.fd = fd, .events = events};

  return poll(&ready, 1, PATIENCE_MS) == 1;
}

/* Sends so many bytes and has them back. The next wait is a poll, as for most
   programs that are waited for. */
static bool make_trip(int fd, char *bytes, size_t count) {
  size_t left = count;
  ssize_t some;

  if (send(fd, bytes, count, 0) != (ssize_t)count)
    return false;
  while (left > 0) {
    if (!wait_for(fd, POLLIN) || (some = recv(fd, bytes, left, 0)) <= 0)
      return false;
    left -= (size_t)some;
  }
  return true;
}

/* One more, joined for sure: a byte has come back. */
static bool open_one(void) {
  char byte = 'x';
  int fd = connect_to(&party.to);

  if (fd < 0)
    return false;
  if (!wait_for(fd, POLLOUT) || !make_trip(fd, &byte, 1)) {
    close(fd);
    return false;
  }
  if (party.open == party.room) {
    party.room = party.room == 0 ? 64 : party.room * 2;
    party.talkers =
        realloc(party.talkers, (size_t)party.room * sizeof *party.talkers);
    if (party.talkers == NULL)
      fail("realloc");
  }
  party.talkers[party.open++] = (struct talker){.fd = fd};
  return true;
}

static void open_up_to(int count) {
  double end = now() + OPENING_S;

  while (party.open < count && now() < end && open_one())
    continue;
  printf("%d\n", party.open);
}

static void talk_alone(double seconds) {
  char message[MESSAGE_BYTES] = "";
  double began = now(), before = began;

  while (before < began + seconds && party.open > 0) {
    double after;
    if (!make_trip(party.talkers[0].fd, message, sizeof message))
      break;
    after = now();
    note(after - before);
    before = after;
  }
  tell_trips(now() - began);
}

static bool say(struct talker *talker, const char *bytes, size_t count) {
  talker->began = now();
  talker->left = count;
  return send(talker->fd, bytes, count, 0) == (ssize_t)count;
}

/* False when the connection is over. */
static bool hear(struct talker *talker, char *bytes, size_t count) {
  ssize_t some = recv(talker->fd, bytes, talker->left, 0);

  if (some <= 0)
    return some < 0 && errno == EAGAIN;
  talker->left -= (size_t)some;
  if (talker->left > 0)
    return true;
  note(now() - talker->began);
  return say(talker, bytes, count);
}

/* Answers that are still due, so that the next measurement finds none. */
static void hear_out(char *bytes) {
  double end = now() + PATIENCE_MS / 1e3;

  for (int i = 0; i < party.open; i++) {
    struct talker *talker = &party.talkers[i];
    while (talker->left > 0 && now() < end && wait_for(talker->fd, POLLIN)) {
      ssize_t some = recv(talker->fd, bytes, talker->left, 0);
      if (some <= 0)
        break;
      talker->left -= (size_t)some;
    }
  }
}

static void talk_together(double seconds, size_t count) {
  struct epoll_event events[EVENTS];
  char *bytes = calloc(1, count);
  int poll_fd = new_poll();
  double began = now();

  if (bytes == NULL)
    fail("calloc");
  for (int i = 0; i < party.open; i++) {
    watch(poll_fd, party.talkers[i].fd, EPOLLIN, &party.talkers[i]);
    say(&party.talkers[i], bytes, count);
  }
  while (now() < began + seconds) {
    int ready = epoll_wait(poll_fd, events, EVENTS, 100);
    for (int i = 0; i < ready; i++)
      if (!hear(events[i].data.ptr, bytes, count)) {
        struct talker *talker = events[i].data.ptr;
        epoll_ctl(poll_fd, EPOLL_CTL_DEL, talker->fd, NULL);
        talker->left = 0;
      }
  }
  tell_trips(now() - began);
  close(poll_fd);
  hear_out(bytes);
  free(bytes);
}

/* Does what its input says, a line each, and prints a line for each:
     open N             until so many are open       ► N that are
     alone SECONDS      the first of them talks      ► COUNT SECONDS P50 P99
     all SECONDS BYTES  each sends so many at a time ► the same */
int pairs_main(char **arguments) {
  char line[128];
  double seconds;
  size_t bytes;
  int count;

  party.to = address_of("127.0.0.1", arguments[0]);
  while (fgets(line, sizeof line, stdin) != NULL)
    if (sscanf(line, "open %d", &count) == 1)
      open_up_to(count);
    else if (sscanf(line, "alone %lf", &seconds) == 1)
      talk_alone(seconds);
    else if (sscanf(line, "all %lf %zu", &seconds, &bytes) == 2 && bytes > 0)
      talk_together(seconds, bytes);
  return 0;
}
