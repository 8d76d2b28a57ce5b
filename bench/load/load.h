/* SPDX-License-Identifier: MIT */
/*
 * What the bench's own programs share: one executable, `load`, with a command
 * for each. All of it is loopback and IPv4, one thread, and ends with the first
 * thing that fails: a measurement that went on would be none.
 */
#ifndef RELAY_BENCH_LOAD_H
#define RELAY_BENCH_LOAD_H

#include <netinet/in.h>
#include <stddef.h>

/* Says why on standard error and exits with 1. */
_Noreturn void fail(const char *what);

/* Seconds on the monotonic clock. */
double now(void);

struct sockaddr_in address_of(const char *host, const char *port);

/* A listening socket that does not block. */
int listen_at(const char *host, const char *port);
/* The port of a socket of ours. */
int port_of(int fd);
/* A socket that does not block and is on its way to be connected, without
   Nagle; -1 with errno when it failed at once. */
int connect_to(const struct sockaddr_in *to);
/* The next connection that waits, as connect_to; -1 when there is none. */
int accept_from(int listener);

/* An epoll and what it is told: `tag` comes back in the event. */
int new_poll(void);
void watch(int poll_fd, int fd, unsigned events, void *tag);
void rewatch(int poll_fd, int fd, unsigned events, void *tag);

/* The commands; their arguments, without the name. */
int echo_main(char **arguments);
int delay_main(char **arguments);
int connects_main(char **arguments);
int pairs_main(char **arguments);

#endif
