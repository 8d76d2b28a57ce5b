/* SPDX-License-Identifier: MIT */
/*
 * What the bench loads systems with, where no tool of others does it:
 *
 *   load echo                      a service that sends back what it gets
 *   load delay HOST PORT TO MS     TO's port, as far away as a round trip of MS
 *   load connects PORT SECONDS N   short connections, N at a time
 *   load pairs PORT                connections that stay, told by its input
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void fail(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}

double now(void) {
  struct timespec time;

  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- sockets --------------------------------------------------------------
 */

struct sockaddr_in address_of(const char *host, const char *port) {
  struct sockaddr_in address;

  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_port = htons((unsigned short)atoi(port));
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
    errno = EINVAL, fail(host);
  return address;
}

static int new_socket(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

  if (fd < 0)
    fail("socket");
  return fd;
}

static void tune(int fd) {
  int one = 1;

  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

int listen_at(const char *host, const char *port) {
  struct sockaddr_in address = address_of(host, port);
  int fd = new_socket(), one = 1;

  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
      listen(fd, SOMAXCONN) != 0)
    fail("listen");
  return fd;
}

int port_of(int fd) {
  struct sockaddr_in address = {.sin_port = 0};
  socklen_t size = sizeof address;

  if (getsockname(fd, (struct sockaddr *)&address, &size) != 0)
    fail("getsockname");
  return ntohs(address.sin_port);
}

int connect_to(const struct sockaddr_in *to) {
  int fd = new_socket(), error;

  tune(fd);
  if (connect(fd, (const struct sockaddr *)to, sizeof *to) == 0 ||
      errno == EINPROGRESS)
    return fd;
  error = errno;
  close(fd);
  errno = error;
  return -1;
}

int accept_from(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

  if (fd >= 0)
    tune(fd);
  else if (errno != EAGAIN && errno != ECONNABORTED)
    fail("accept");
  return fd;
}

/* ---- epoll ----------------------------------------------------------------
 */

int new_poll(void) {
  int fd = epoll_create1(EPOLL_CLOEXEC);

  if (fd < 0)
    fail("epoll_create1");
  return fd;
}

static void control(int poll_fd, int operation, int fd, unsigned events,
                    void *tag) {
  struct epoll_event event = {.events = events, .data.ptr = tag};

  if (epoll_ctl(poll_fd, operation, fd, &event) != 0)
    fail("epoll_ctl");
}

void watch(int poll_fd, int fd, unsigned events, void *tag) {
  control(poll_fd, EPOLL_CTL_ADD, fd, events, tag);
}

void rewatch(int poll_fd, int fd, unsigned events, void *tag) {
  control(poll_fd, EPOLL_CTL_MOD, fd, events, tag);
}

/* ---- commands -------------------------------------------------------------
 */

static const struct {
  const char *name;
  int arguments;
  int (*run)(char **arguments);
} commands[] = {{"echo", 0, echo_main},
                {"delay", 4, delay_main},
                {"connects", 3, connects_main},
                {"pairs", 1, pairs_main}};

static void raise_limit(void) {
  struct rlimit limit;

  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

int main(int count, char **arguments) {
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, NULL, _IOLBF, 0);
  raise_limit();
  for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
    if (count - 2 == commands[i].arguments &&
        strcmp(arguments[1], commands[i].name) == 0)
      return commands[i].run(arguments + 2);
  fputs("usage: load echo | delay HOST PORT TO MS | connects PORT SECONDS N |"
        " pairs PORT\n",
        stderr);
  return 2;
}
