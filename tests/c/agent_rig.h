/* SPDX-License-Identifier: MIT */
/*
 * An agent under test and a relay played by hand: a listening socket and the
 * connections the test accepts from it, all nonblocking, on one thread. What
 * is awaited is polled for between turns of the agent's loop.
 */
#ifndef RELAY_TESTS_AGENT_RIG_H
#define RELAY_TESTS_AGENT_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <relay/agent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "check.h"

#define AWAIT_MS 20000

#define OK_PLAIN "OK host=example.net port=4711 session=s1 resume=t1\n"
#define OK_POOL                                                                \
  "OK host=example.net port=4711 session=s1 resume=t1 heartbeat=60 pool=1\n"
#define VISITOR(id) "VISITOR id=" id " from=192.0.2.7:1234 to=192.0.2.1:4711\n"

enum answer {
  ANSWER_ECHO,
  ANSWER_ADDRESS,
  ANSWER_NAME,
  ANSWER_FD,
  ANSWER_REJECT,
  ANSWER_LATER,
  ANSWER_CLOSE
};

struct agent_rig {
  uv_loop_t loop;
  relay_agent_options options;
  relay_agent *agent;
  int listener;
  unsigned port;
  int control;

  /* How visitors are answered. */
  enum answer answer;
  struct sockaddr_in target;
  const char *preamble;
  int fd; /* ANSWER_FD: our end */

  /* What the agent told. */
  unsigned established, fresh, visitors, ends, agent_ends;
  char host[256];
  unsigned given_port;
  char visitor_id[128], from[128], to[128];
  relay_visitor_end last_end;
  int end_error;
  char end_reason[512];
  bool closed;
};

/* Turns the loop until the condition holds; false after AWAIT_MS. */
#define AWAIT(rig, condition)                                                  \
  __extension__({                                                              \
    uint64_t until_ = uv_hrtime() / 1000000 + AWAIT_MS;                        \
    bool ok_ = false;                                                          \
    while (!(ok_ = (condition)) && uv_hrtime() / 1000000 < until_)             \
      rig_turn(rig);                                                           \
    check_that_(ok_, __FILE__, __LINE__, "in time: " #condition);              \
    ok_;                                                                       \
  })

static inline void rig_turn(struct agent_rig *rig) {
  uv_run(&rig->loop, UV_RUN_NOWAIT);
  poll(NULL, 0, 1);
}

/* Turns for so long, to see that something does not happen. */
static inline void rig_idle(struct agent_rig *rig, uint64_t ms) {
  uint64_t until = uv_hrtime() / 1000000 + ms;

  while (uv_hrtime() / 1000000 < until)
    rig_turn(rig);
}

/* ---- sockets ---------------------------------------------------------- */

static inline int rig_listen(unsigned *port) {
  struct sockaddr_in address = {0};
  socklen_t length = sizeof(address);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK_INT(0, bind(fd, (struct sockaddr *)&address, sizeof(address)));
  CHECK_INT(0, listen(fd, 16));
  getsockname(fd, (struct sockaddr *)&address, &length);
  *port = ntohs(address.sin_port);
  return fd;
}

static inline int rig_accept(struct agent_rig *rig, int listener) {
  int fd = -1;

  AWAIT(rig, (fd = accept4(listener, NULL, NULL,
                           SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
  return fd;
}

/* The next line, without LF; "" when the connection ended instead. */
static inline const char *rig_line(struct agent_rig *rig, int fd) {
  static char line[2048];
  size_t length = 0;
  ssize_t count = 0;

  AWAIT(rig, ((count = recv(fd, line + length, 1, 0)) == 1 &&
              line[length++] == '\n') ||
                 count == 0 || (count < 0 && errno != EAGAIN));
  line[count == 1 ? length - 1 : 0] = '\0';
  return line;
}

/* The next line that is no heartbeat. */
static inline const char *rig_word(struct agent_rig *rig, int fd) {
  const char *line;

  do
    line = rig_line(rig, fd);
  while (strncmp(line, "PING", 4) == 0 || strncmp(line, "PONG", 4) == 0);
  return line;
}

static inline void rig_send(int fd, const char *text) {
  CHECK_INT(strlen(text), send(fd, text, strlen(text), MSG_NOSIGNAL));
}

/* Exactly `text` comes. */
static inline void rig_expect(struct agent_rig *rig, int fd, const char *text) {
  char bytes[1024] = {0};
  size_t length = 0, goal = strlen(text);
  ssize_t count = 0;

  AWAIT(rig, ((count = recv(fd, bytes + length, goal - length, 0)) > 0 &&
              (length += (size_t)count) == goal) ||
                 count == 0 || (count < 0 && errno != EAGAIN));
  CHECK_STR(text, bytes);
}

/* How the connection ended: 0 in order, ECONNRESET, -1 not at all. */
static inline int rig_end(struct agent_rig *rig, int fd) {
  char byte;
  ssize_t count = 1;

  AWAIT(rig,
        (count = recv(fd, &byte, 1, 0)) == 0 || (count < 0 && errno != EAGAIN));
  return count == 0 ? 0 : count < 0 ? errno : -1;
}

/* ---- the agent -------------------------------------------------------- */

static inline void on_rig_established(void *data, relay_agent *agent,
                                      const char *host, unsigned port,
                                      int fresh) {
  struct agent_rig *rig = data;

  (void)agent;
  rig->established++;
  rig->fresh += fresh != 0;
  snprintf(rig->host, sizeof(rig->host), "%s", host);
  rig->given_port = port;
}

static inline int rig_answer(struct agent_rig *rig, relay_agent *agent,
                             const char *id) {
  const char *preamble = rig->preamble;
  size_t length = preamble != NULL ? strlen(preamble) : 0;
  int fds[2];

  switch (rig->answer) {
  case ANSWER_ECHO:
    return relay_agent_serve_echo(agent, id);
  case ANSWER_ADDRESS:
    return relay_agent_serve_address(agent, id, (struct sockaddr *)&rig->target,
                                     sizeof(rig->target), preamble, length);
  case ANSWER_NAME:
    return relay_agent_serve_name(agent, id, NULL, ntohs(rig->target.sin_port),
                                  preamble, length);
  case ANSWER_FD:
    CHECK_INT(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    rig->fd = fds[0];
    return relay_agent_serve_fd(agent, id, fds[1]);
  case ANSWER_REJECT:
    return relay_agent_reject(agent, id, "not today");
  default:
    return 0;
  }
}

static inline void on_rig_closed(void *data) {
  struct agent_rig *rig = data;

  rig->closed = true;
}

static inline void on_rig_visitor(void *data, relay_agent *agent,
                                  const relay_visitor_info *visitor) {
  struct agent_rig *rig = data;

  rig->visitors++;
  snprintf(rig->visitor_id, sizeof(rig->visitor_id), "%s", visitor->id);
  snprintf(rig->from, sizeof(rig->from), "%s", visitor->from);
  snprintf(rig->to, sizeof(rig->to), "%s", visitor->to);
  if (rig->answer == ANSWER_CLOSE) {
    relay_agent_close(agent, on_rig_closed, rig);
    rig->agent = NULL;
    return;
  }
  CHECK_INT(0, rig_answer(rig, agent, visitor->id));
}

static inline void on_rig_visitor_end(void *data, relay_agent *agent,
                                      const relay_visitor_end *end) {
  struct agent_rig *rig = data;

  (void)agent;
  rig->ends++;
  rig->last_end = *end;
}

static inline void on_rig_agent_end(void *data, relay_agent *agent, int error,
                                    const char *reason) {
  struct agent_rig *rig = data;

  (void)agent;
  rig->agent_ends++;
  rig->end_error = error;
  snprintf(rig->end_reason, sizeof(rig->end_reason), "%s", reason);
}

/* The relay's socket listens; the agent is still to be started, so that the
   test can change its options. Short waits, no pool. */
static inline void rig_prepare(struct agent_rig *rig) {
  memset(rig, 0, sizeof(*rig));
  rig->control = rig->fd = -1;
  CHECK_INT(0, uv_loop_init(&rig->loop));
  rig->listener = rig_listen(&rig->port);
  relay_agent_options_init(&rig->options, sizeof(rig->options));
  rig->options.host = "127.0.0.1";
  rig->options.port = rig->port;
  rig->options.pool = 0;
  rig->options.backoff_min_ms = 10;
  rig->options.backoff_max_ms = 50;
  rig->options.data = rig;
  rig->options.on_established = on_rig_established;
  rig->options.on_visitor = on_rig_visitor;
  rig->options.on_visitor_end = on_rig_visitor_end;
  rig->options.on_end = on_rig_agent_end;
}

static inline void rig_start(struct agent_rig *rig) {
  CHECK_INT(0, relay_agent_new(&rig->agent, &rig->loop, &rig->options));
}

/* Takes the control connection, and answers its LISTEN. */
static inline void rig_welcome(struct agent_rig *rig, const char *ok) {
  rig->control = rig_accept(rig, rig->listener);
  CHECK(strncmp(rig_line(rig, rig->control), "RELAY/1 LISTEN", 14) == 0);
  unsigned before = rig->established;
  rig_send(rig->control, ok);
  AWAIT(rig, rig->established == before + 1);
}

/* The data connection of a visitor announced on control. */
static inline int take_data(struct agent_rig *rig, const char *expected) {
  int data = rig_accept(rig, rig->listener);

  CHECK_STR(expected, rig_line(rig, data));
  return data;
}

/* Closes the agent and sees that nothing is left on the loop. */
static inline void rig_finish(struct agent_rig *rig) {
  if (rig->agent != NULL) {
    relay_agent_close(rig->agent, on_rig_closed, rig);
    CHECK(!rig->closed); /* never from within the call */
  }
  if (rig->control >= 0) /* it said goodbye and waits for ours */
    close(rig->control);
  close(rig->listener);
  AWAIT(rig, rig->closed);
  AWAIT(rig, uv_loop_alive(&rig->loop) == 0);
  CHECK_INT(0, uv_loop_close(&rig->loop));
  if (rig->fd >= 0)
    close(rig->fd);
}

#endif
