/* SPDX-License-Identifier: MIT */
/*
 * A host program, as embedders would write one: relays and agents on a loop of
 * its own, through the public headers only. The agents echo. Visitors are plain
 * sockets that are looked at between turns of the loop.
 */
#ifndef RELAY_TESTS_HOST_H
#define RELAY_TESTS_HOST_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <relay/agent.h>
#include <relay/relay.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "check.h"

#define HELLO "hello, relay"

struct host {
  uv_loop_t loop;
  relay_t *relay;
  relay_agent *agent;
  relay_policy policy;
  relay_options options;
  relay_agent_options agent_options;
  unsigned relay_closed, agent_closed;

  /* What the relay's hooks told. */
  unsigned auths, allocates, visitors, peeks, opens, closes, gones, ticks;
  unsigned cancels, logs;
  uint64_t call;      /* the last question */
  uint64_t cancelled; /* the last one */
  uint64_t conn;      /* the last visitor asked about */
  uint64_t agent_id;  /* the last agent asked about */
  int gone_reason;
  relay_conn_info closed_conn;

  /* What the agent told. */
  unsigned established, visits, visit_ends, agent_ends;
  unsigned port; /* the address */
  int end_error;

  /* What a test wants its hooks to know or do. */
  relay_verdict verdict;
  int step;
};

static inline void host_established(void *data, relay_agent *agent,
                                    const char *host, unsigned port,
                                    int fresh) {
  struct host *h = data;

  (void)agent, (void)host, (void)fresh;
  h->established++;
  h->port = port;
}

static inline void host_visitor(void *data, relay_agent *agent,
                                const relay_visitor_info *visitor) {
  struct host *h = data;

  h->visits++;
  relay_agent_serve_echo(agent, visitor->id);
}

static inline void host_visitor_end(void *data, relay_agent *agent,
                                    const relay_visitor_end *end) {
  struct host *h = data;

  (void)agent, (void)end;
  h->visit_ends++;
}

static inline void host_agent_end(void *data, relay_agent *agent, int error,
                                  const char *reason) {
  struct host *h = data;

  (void)agent, (void)reason;
  h->agent_ends++;
  h->end_error = error;
}

/* Options with short times; a test may change them before host_start. */
static inline void host_prepare(struct host *h) {
  memset(h, 0, sizeof(*h));
  signal(SIGPIPE, SIG_IGN);
  CHECK_INT(0, uv_loop_init(&h->loop));
  h->policy.size = sizeof(h->policy);
  h->policy.data = h;
  h->verdict.size = sizeof(h->verdict);
  relay_options_init(&h->options, sizeof(h->options));
  h->options.listen_host = "127.0.0.1";
  h->options.policy = &h->policy;
  h->options.hook_agent_ms = 60;
  h->options.hook_visitor_ms = 60;
  relay_agent_options_init(&h->agent_options, sizeof(h->agent_options));
  h->agent_options.host = "127.0.0.1";
  h->agent_options.backoff_min_ms = 1;
  h->agent_options.backoff_max_ms = 50;
  h->agent_options.data = h;
  h->agent_options.on_established = host_established;
  h->agent_options.on_visitor = host_visitor;
  h->agent_options.on_visitor_end = host_visitor_end;
  h->agent_options.on_end = host_agent_end;
}

static inline void host_start(struct host *h) {
  CHECK_INT(0, relay_new(&h->relay, &h->loop, &h->options));
  h->agent_options.port = relay_port(h->relay);
  CHECK_INT(0, relay_agent_new(&h->agent, &h->loop, &h->agent_options));
}

/* One turn of the loop, waiting at most two milliseconds for something. */
static inline void host_turn(struct host *h) {
  struct pollfd wait = {uv_backend_fd(&h->loop), POLLIN, 0};

  poll(&wait, 1, uv_backend_timeout(&h->loop) == 0 ? 0 : 2);
  uv_run(&h->loop, UV_RUN_NOWAIT);
}

/* Turns until `so`, or some seconds have passed. */
#define UNTIL(h, so)                                                           \
  do {                                                                         \
    uint64_t until_ = uv_hrtime() + UINT64_C(60000000000);                     \
    while (!(so) && uv_hrtime() < until_)                                      \
      host_turn(h);                                                            \
    CHECK(so);                                                                 \
  } while (0)

static inline void host_relay_closed(void *data) {
  ((struct host *)data)->relay_closed++;
}

static inline void host_agent_closed(void *data) {
  ((struct host *)data)->agent_closed++;
}

static inline void host_close_relay(struct host *h) {
  relay_t *relay = h->relay;

  h->relay = NULL;
  if (relay != NULL)
    relay_close(relay, host_relay_closed, h);
}

static inline void host_close_agent(struct host *h) {
  relay_agent *agent = h->agent;

  h->agent = NULL;
  if (agent != NULL)
    relay_agent_close(agent, host_agent_closed, h);
}

/* Closes what is open; the loop ends by itself and nothing is left on it. */
static inline void host_finish(struct host *h) {
  host_close_agent(h);
  host_close_relay(h);
  CHECK_INT(0, uv_run(&h->loop, UV_RUN_DEFAULT));
  CHECK_INT(1, h->relay_closed);
  CHECK_INT(1, h->agent_closed);
  CHECK_INT(h->visits, h->visit_ends);
  CHECK_INT(0, uv_loop_close(&h->loop));
}

/* ---- visitors --------------------------------------------------------- */

static inline int visitor_open(unsigned port) {
  struct sockaddr_in to = {.sin_family = AF_INET,
                           .sin_port = htons((uint16_t)port),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);

  CHECK_INT(0, connect(fd, (struct sockaddr *)&to, sizeof(to)));
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static inline void visitor_say(int fd, const char *text) {
  CHECK_INT(strlen(text), send(fd, text, strlen(text), MSG_NOSIGNAL));
}

static inline void visitor_close(int fd, bool by_reset) {
  struct linger linger = {1, 0};

  if (by_reset)
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
  close(fd);
}

/* What a read finds: 'd' bytes (left where they are), 'e' an end, 'r' a reset,
   '-' nothing yet. */
static inline char visitor_sees(int fd) {
  char byte;
  ssize_t count = recv(fd, &byte, 1, MSG_PEEK);

  return count > 0 ? 'd' : count == 0 ? 'e' : errno == EAGAIN ? '-' : 'r';
}

/* How it ends, 'e' or 'r', or 'd' when there are bytes. A reset is told once,
   so this is asked once. */
static inline char visitor_ends(struct host *h, int fd) {
  uint64_t until = uv_hrtime() + UINT64_C(60000000000);
  char sees = '-';

  while (sees == '-' && uv_hrtime() < until) {
    host_turn(h);
    sees = visitor_sees(fd);
  }
  return sees;
}

/* Waits until all of `text` is there, and takes it. */
static inline void visitor_hears(struct host *h, int fd, const char *text) {
  char bytes[256];
  ssize_t size = (ssize_t)strlen(text);

  UNTIL(h, recv(fd, bytes, (size_t)size, MSG_PEEK) == size);
  CHECK_INT(size, recv(fd, bytes, (size_t)size, 0));
  CHECK_MEM(text, bytes, (size_t)size);
}

/* A whole visit to the echo behind an address: served, to the byte. */
static inline void host_visit(struct host *h, unsigned port) {
  int fd = visitor_open(port);

  visitor_say(fd, HELLO);
  shutdown(fd, SHUT_WR);
  visitor_hears(h, fd, HELLO);
  CHECK_INT('e', visitor_ends(h, fd));
  close(fd);
}

/* One that is reset. */
static inline void host_visit_refused(struct host *h, unsigned port) {
  int fd = visitor_open(port);

  CHECK_INT('r', visitor_ends(h, fd));
  close(fd);
}

#endif
