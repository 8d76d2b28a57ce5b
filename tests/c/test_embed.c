/* SPDX-License-Identifier: MIT */
/*
 * The library as a host program sees it: both halves on one loop, several of
 * each, a policy in C that uses every hook, every call by id, and a loop that
 * ends by itself with nothing left behind.
 */
#include "host.h"

#include <stddef.h>

/* ---- a policy that notes what it is told ------------------------------ */

static int note_auth(void *data, uint64_t call, const relay_agent_info *agent,
                     const relay_credentials *credentials,
                     relay_verdict *verdict) {
  struct host *h = data;

  h->auths++;
  h->call = call;
  h->agent_id = agent->id;
  CHECK(credentials->id == NULL);
  *verdict = h->verdict;
  return 0;
}

static int note_allocate(void *data, uint64_t call,
                         const relay_agent_info *agent, const relay_want *want,
                         relay_verdict *verdict) {
  struct host *h = data;

  h->allocates++;
  h->call = call;
  h->agent_id = agent->id;
  CHECK_INT(h->allocates, want->attempt);
  CHECK_STR("127.0.0.1", want->host);
  *verdict = h->verdict;
  return 0;
}

static int note_visitor(void *data, uint64_t call, const relay_conn_info *conn,
                        const relay_agent_info *agents, size_t agent_count,
                        relay_verdict *verdict) {
  struct host *h = data;

  h->visitors++;
  h->call = call;
  h->conn = conn->id;
  CHECK_STR("127.0.0.1", conn->addr);
  CHECK_INT(h->port, conn->listen_port);
  CHECK_INT(1, agent_count);
  h->agent_id = agents[0].id;
  *verdict = h->verdict;
  return 0;
}

static void note_open(void *data, const relay_conn_info *conn) {
  struct host *h = data;

  h->opens++;
  CHECK_INT(h->conn, conn->id);
  CHECK(conn->agent != 0);
}

static void note_close(void *data, const relay_conn_info *conn) {
  struct host *h = data;

  h->closes++;
  h->closed_conn = *conn;
  CHECK_INT(UV_ENOENT, relay_close_conn(h->relay, conn->id, "again"));
}

static unsigned gone_port;

static void note_gone(void *data, const relay_agent_info *agent, int reason) {
  struct host *h = data;

  h->gones++;
  h->gone_reason = reason;
  gone_port = agent->port;
  CHECK_INT(h->agent_id, agent->id);
}

static void note_cancel(void *data, uint64_t call) {
  struct host *h = data;
  relay_verdict allow = {.size = sizeof(allow)};

  h->cancels++;
  h->cancelled = call;
  if (h->relay != NULL)
    CHECK_INT(UV_ENOENT, relay_settle(h->relay, call, &allow));
}

/* ---- whole programs --------------------------------------------------- */

TEST(two_of_each_on_one_loop_twice) {
  unsigned round, i;

  for (round = 0; round < 2; round++) {
    struct host a, b;

    host_prepare(&a);
    host_prepare(&b);
    CHECK_INT(0, uv_loop_close(&b.loop)); /* both are on a's */
    b.options.mode = b.agent_options.mode = RELAY_MODE_COPY;
    b.agent_options.pool = 0;
    CHECK_INT(0, relay_new(&a.relay, &a.loop, &a.options));
    CHECK_INT(0, relay_new(&b.relay, &a.loop, &b.options));
    /* Each agent uses the other's relay, for good measure. */
    a.agent_options.port = relay_port(b.relay);
    b.agent_options.port = relay_port(a.relay);
    CHECK_INT(0, relay_agent_new(&a.agent, &a.loop, &a.agent_options));
    CHECK_INT(0, relay_agent_new(&b.agent, &a.loop, &b.agent_options));
    UNTIL(&a, a.established == 1 && b.established == 1);
    CHECK(a.port != b.port);
    for (i = 0; i < 3; i++) {
      host_visit(&a, a.port);
      host_visit(&a, b.port);
    }
    host_close_agent(&b);
    host_close_relay(&b);
    host_close_agent(&a);
    host_close_relay(&a);
    CHECK_INT(0, uv_run(&a.loop, UV_RUN_DEFAULT));
    CHECK_INT(1, a.relay_closed + b.relay_closed == 2);
    CHECK_INT(1, a.agent_closed + b.agent_closed == 2);
    CHECK_INT(3, a.visit_ends);
    CHECK_INT(3, b.visit_ends);
    CHECK_INT(0, uv_loop_close(&a.loop));
  }
}

TEST(closing_twice_is_once) {
  struct host h;
  relay_t *relay;
  relay_agent *agent;

  host_prepare(&h);
  host_start(&h);
  relay = h.relay;
  agent = h.agent;
  host_close_agent(&h);
  host_close_relay(&h);
  relay_close(relay, host_relay_closed, &h);
  relay_agent_close(agent, host_agent_closed, &h);
  host_finish(&h);
}

TEST(drains_and_then_closes) {
  struct host h;
  int fd;

  host_prepare(&h);
  host_start(&h);
  UNTIL(&h, h.established == 1);
  fd = visitor_open(h.port);
  visitor_say(fd, HELLO);
  visitor_hears(&h, fd, HELLO);
  relay_agent_drain(h.agent, 60000);
  relay_drain(h.relay, 60000, host_relay_closed, &h);
  visitor_say(fd, HELLO); /* a live pair goes on */
  visitor_hears(&h, fd, HELLO);
  CHECK_INT(0, h.relay_closed);
  shutdown(fd, SHUT_WR);
  UNTIL(&h, h.relay_closed == 1 && h.agent_ends == 1);
  CHECK_INT(0, h.end_error);
  CHECK_INT('e', visitor_ends(&h, fd));
  close(fd);
  h.relay_closed = 0;
  host_finish(&h);
}

TEST(bad_options_leave_nothing) {
  struct host h;
  relay_t *relay = NULL;

  host_prepare(&h);
  h.policy.size = sizeof(h.policy) + 8; /* hooks of a later version */
  CHECK_INT(UV_EINVAL, relay_new(&relay, &h.loop, &h.options));
  h.policy.size = sizeof(h.policy);
  h.options.advertise = "two words";
  CHECK_STR("advertise", relay_options_fault(&h.options));
  CHECK_INT(UV_EINVAL, relay_new(&relay, &h.loop, &h.options));
  h.options.advertise = NULL;
  h.options.dial = "::1:80";
  CHECK_STR("dial", relay_options_fault(&h.options));
  CHECK_INT(UV_EINVAL, relay_new(&relay, &h.loop, &h.options));
  h.options.dial = NULL;
  h.options.listen_host = "no address";
  CHECK_INT(UV_EINVAL, relay_new(&relay, &h.loop, &h.options));
  h.options.listen_host = "192.0.2.1"; /* nobody's */
  CHECK_INT(UV_EADDRNOTAVAIL, relay_new(&relay, &h.loop, &h.options));
  CHECK(relay == NULL);
  CHECK_INT(0, uv_run(&h.loop, UV_RUN_DEFAULT));
  CHECK_INT(0, uv_loop_close(&h.loop));
}

/* ---- auth ------------------------------------------------------------- */

TEST(auth_denies) {
  struct host h;

  host_prepare(&h);
  h.policy.auth = note_auth;
  h.policy.agent_gone = note_gone;
  h.verdict.answer = RELAY_DENY;
  h.verdict.reason = "not you";
  host_start(&h);
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(RELAY_EDENIED, h.end_error);
  CHECK_INT(0, h.established);
  CHECK_INT(0, h.gones); /* it never was in */
  host_finish(&h);
}

static int fail_auth(void *data, uint64_t call, const relay_agent_info *agent,
                     const relay_credentials *credentials,
                     relay_verdict *verdict) {
  (void)data, (void)call, (void)agent, (void)credentials, (void)verdict;
  return UV_EIO;
}

TEST(auth_that_fails_denies) {
  struct host h;

  host_prepare(&h);
  h.policy.auth = fail_auth;
  host_start(&h);
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(RELAY_EDENIED, h.end_error);
  host_finish(&h);
}

TEST(answers_that_make_no_sense_deny) {
  static const int answers[] = {RELAY_PICK, RELAY_NEED, 77};
  unsigned i;

  for (i = 0; i < 3; i++) {
    struct host h;

    host_prepare(&h);
    h.policy.auth = note_auth;
    h.verdict.answer = (relay_answer)answers[i];
    host_start(&h);
    UNTIL(&h, h.agent_ends == 1 || h.established == 1);
    CHECK_INT(RELAY_EDENIED, h.end_error);
    host_finish(&h);
  }
}

TEST(auth_is_settled_later) {
  struct host h;
  relay_verdict allow = {.size = sizeof(allow)};

  host_prepare(&h);
  h.policy.auth = note_auth;
  h.policy.agent_gone = note_gone;
  h.policy.cancel = note_cancel;
  h.options.hook_agent_ms = 60000;
  h.verdict.answer = RELAY_DEFER;
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  allow.size = 0; /* forgotten: no verdict at all */
  CHECK_INT(UV_EINVAL, relay_settle(h.relay, h.call, &allow));
  CHECK_INT(UV_EINVAL, relay_settle(h.relay, h.call, &h.verdict)); /* DEFER */
  CHECK_INT(UV_EINVAL, relay_settle(h.relay, h.call, NULL));
  allow.size = sizeof(allow);
  CHECK_INT(UV_ENOENT, relay_settle(h.relay, h.call + 1000, &allow));
  CHECK_INT(0, relay_settle(h.relay, h.call, &allow));
  CHECK_INT(UV_ENOENT, relay_settle(h.relay, h.call, &allow));
  UNTIL(&h, h.established == 1);
  host_visit(&h, h.port);
  host_close_agent(&h);
  UNTIL(&h, h.gones == 1);
  CHECK_INT(h.port, gone_port); /* it had it until then */
  CHECK_INT(0, h.cancels);
  host_finish(&h);
}

TEST(auth_too_late_is_told) {
  struct host h;
  relay_verdict allow = {.size = sizeof(allow)};

  host_prepare(&h);
  h.policy.auth = note_auth;
  h.policy.cancel = note_cancel;
  h.verdict.answer = RELAY_DEFER;
  host_start(&h);
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(RELAY_EDENIED, h.end_error);
  CHECK_INT(1, h.cancels);
  CHECK_INT(h.call, h.cancelled);
  CHECK_INT(UV_ENOENT, relay_settle(h.relay, h.call, &allow));
  host_finish(&h);
}

TEST(auth_of_one_that_left_is_cancelled) {
  struct host h;

  host_prepare(&h);
  h.policy.auth = note_auth;
  h.policy.cancel = note_cancel;
  h.options.hook_agent_ms = 60000;
  h.verdict.answer = RELAY_DEFER;
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  host_close_relay(&h);
  CHECK_INT(1, h.cancels);
  CHECK_INT(h.call, h.cancelled);
  host_finish(&h);
}

static int settle_auth_first(void *data, uint64_t call,
                             const relay_agent_info *agent,
                             const relay_credentials *credentials,
                             relay_verdict *verdict) {
  struct host *h = data;
  char reason[] = "settled before";

  (void)agent, (void)credentials;
  h->auths++;
  h->verdict.reason = reason;
  CHECK_INT(0, relay_settle(h->relay, call, &h->verdict));
  CHECK_INT(UV_ENOENT, relay_settle(h->relay, call, &h->verdict));
  memset(reason, 'x', sizeof(reason) - 1); /* it was copied */
  h->verdict.reason = NULL;
  verdict->answer = RELAY_DEFER;
  return 0;
}

TEST(settling_before_the_hook_returns) {
  struct host h;

  host_prepare(&h);
  h.policy.auth = settle_auth_first;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  CHECK_INT(1, h.auths);
  host_finish(&h);
  host_prepare(&h);
  h.policy.auth = settle_auth_first;
  h.verdict.answer = RELAY_DENY;
  host_start(&h);
  UNTIL(&h, h.agent_ends == 1);
  host_finish(&h);
}

/* ---- allocate --------------------------------------------------------- */

/* A port that somebody else has, until the socket is closed. It is none of
   those that the kernel gives to connections, or one of them might have it
   next. */
static int take_port(unsigned *port) {
  static unsigned tries;
  struct sockaddr_in at = {.sin_family = AF_INET,
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);

  do {
    *port = 10000 + ((unsigned)getpid() * 31 + ++tries) % 20000;
    at.sin_port = htons((uint16_t)*port);
  } while (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 && tries < 20000);
  CHECK_INT(0, listen(fd, 1));
  return fd;
}

TEST(allocate_picks_port_and_host) {
  struct host h;
  unsigned port;
  int fd = take_port(&port);

  close(fd);
  host_prepare(&h);
  h.policy.allocate = note_allocate;
  h.verdict.answer = RELAY_PICK;
  h.verdict.port = port;
  h.verdict.host = "relay.example.net";
  host_start(&h);
  UNTIL(&h, h.established == 1);
  CHECK_INT(port, h.port);
  host_visit(&h, port);
  host_finish(&h);
}

/* No agent would understand it. */
TEST(allocate_picks_what_is_no_host) {
  struct host h;

  host_prepare(&h);
  h.policy.allocate = note_allocate;
  h.verdict.answer = RELAY_PICK;
  h.verdict.host = "two words";
  h.agent_options.once = 1;
  host_start(&h);
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(0, h.established);
  host_finish(&h);
}

TEST(allocate_denies) {
  struct host h;

  host_prepare(&h);
  h.policy.allocate = note_allocate;
  h.policy.agent_gone = note_gone;
  h.verdict.answer = RELAY_DENY;
  host_start(&h);
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(RELAY_EPORT_REFUSED, h.end_error);
  CHECK_INT(1, h.gones); /* auth had let it in */
  host_finish(&h);
}

TEST(allocate_is_asked_sixteen_times) {
  struct host h;
  unsigned port;
  int fd = take_port(&port);

  host_prepare(&h);
  h.policy.allocate = note_allocate;
  h.agent_options.once = 1;
  h.verdict.answer = RELAY_PICK;
  h.verdict.port = port;
  host_start(&h);
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(16, h.allocates);
  CHECK_INT(RELAY_EPORT_TAKEN, h.end_error);
  close(fd);
  host_finish(&h);
}

static int allocate_third(void *data, uint64_t call,
                          const relay_agent_info *agent, const relay_want *want,
                          relay_verdict *verdict) {
  struct host *h = data;

  (void)call, (void)agent;
  h->allocates++;
  verdict->answer = RELAY_PICK;
  verdict->port = want->attempt < 3 ? h->verdict.port : 0;
  return 0;
}

TEST(allocate_may_pick_another) {
  struct host h;
  unsigned port;
  int fd = take_port(&port);

  host_prepare(&h);
  h.policy.allocate = allocate_third;
  h.verdict.port = port;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  CHECK_INT(3, h.allocates);
  close(fd);
  host_finish(&h);
}

TEST(allocate_is_settled_later_and_again) {
  struct host h;
  relay_verdict pick = {.size = sizeof(pick), .answer = RELAY_PICK};
  unsigned port;
  int fd = take_port(&port);

  host_prepare(&h);
  h.policy.allocate = note_allocate;
  h.policy.cancel = note_cancel;
  h.options.hook_agent_ms = 60000;
  h.verdict.answer = RELAY_DEFER;
  host_start(&h);
  UNTIL(&h, h.allocates == 1);
  pick.port = port;
  CHECK_INT(0, relay_settle(h.relay, h.call, &pick));
  CHECK_INT(2, h.allocates); /* taken: asked anew */
  pick.port = 0;
  CHECK_INT(0, relay_settle(h.relay, h.call, &pick));
  UNTIL(&h, h.established == 1);
  CHECK_INT(0, h.cancels);
  close(fd);
  host_finish(&h);
}

/* ---- visitors --------------------------------------------------------- */

static void start_with_visitor_hooks(struct host *h) {
  h->policy.visitor = note_visitor;
  h->policy.open = note_open;
  h->policy.close = note_close;
  h->policy.agent_gone = note_gone;
  h->policy.cancel = note_cancel;
  host_start(h);
  UNTIL(h, h->established == 1);
}

TEST(open_and_close_are_told_once) {
  struct host h;

  host_prepare(&h);
  start_with_visitor_hooks(&h);
  host_visit(&h, h.port);
  UNTIL(&h, h.closes == 1);
  CHECK_INT(1, h.visitors);
  CHECK_INT(1, h.opens);
  CHECK_INT(strlen(HELLO), h.closed_conn.bytes_in);
  CHECK_INT(strlen(HELLO), h.closed_conn.bytes_out);
  CHECK_INT(0, h.closed_conn.reason);
  host_close_agent(&h);
  UNTIL(&h, h.gones == 1);
  host_finish(&h);
  CHECK_INT(1, h.closes);
}

TEST(visitor_is_denied) {
  struct host h;

  host_prepare(&h);
  h.verdict.answer = RELAY_DENY;
  start_with_visitor_hooks(&h);
  host_visit_refused(&h, h.port);
  CHECK_INT(1, h.visitors);
  host_finish(&h);
  CHECK_INT(0, h.opens);
  CHECK_INT(0, h.closes); /* it never was let in */
}

TEST(visitor_is_settled_later) {
  struct host h;
  relay_verdict allow = {.size = sizeof(allow)};
  int fd;

  host_prepare(&h);
  h.options.hook_visitor_ms = 60000;
  h.verdict.answer = RELAY_DEFER;
  start_with_visitor_hooks(&h);
  fd = visitor_open(h.port);
  visitor_say(fd, HELLO);
  shutdown(fd, SHUT_WR);
  UNTIL(&h, h.visitors == 1);
  CHECK_INT(0, relay_settle(h.relay, h.call, &allow));
  CHECK_INT(UV_ENOENT, relay_settle(h.relay, h.call, &allow));
  visitor_hears(&h, fd, HELLO);
  CHECK_INT('e', visitor_ends(&h, fd));
  UNTIL(&h, h.closes == 1);
  close(fd);
  fd = visitor_open(h.port);
  UNTIL(&h, h.visitors == 2);
  allow.answer = RELAY_DENY;
  CHECK_INT(0, relay_settle(h.relay, h.call, &allow));
  CHECK_INT('r', visitor_ends(&h, fd));
  close(fd);
  host_finish(&h);
  CHECK_INT(1, h.closes);
  CHECK_INT(0, h.cancels);
}

TEST(visitor_too_late_or_gone_is_cancelled) {
  struct host h;
  int fd;

  host_prepare(&h);
  h.verdict.answer = RELAY_DEFER;
  start_with_visitor_hooks(&h);
  fd = visitor_open(h.port);
  CHECK_INT('r', visitor_ends(&h, fd)); /* nobody settled */
  close(fd);
  CHECK_INT(1, h.cancels);
  CHECK_INT(h.call, h.cancelled);
  fd = visitor_open(h.port);
  UNTIL(&h, h.visitors == 2);
  visitor_close(fd, true);
  UNTIL(&h, h.cancels == 2);
  CHECK_INT(h.call, h.cancelled);
  host_finish(&h);
  CHECK_INT(0, h.closes);
}

/* The hook looks at the first bytes, and wants more of them once. */
static int note_peek(void *data, uint64_t call, const relay_conn_info *conn,
                     const void *bytes, size_t count, int eof,
                     relay_verdict *verdict) {
  struct host *h = data;

  (void)call, (void)conn, (void)eof;
  h->peeks++;
  if (count < 5) {
    verdict->answer = RELAY_NEED;
    verdict->need = 5;
  } else if (memcmp(bytes, "hello", 5) != 0) {
    verdict->answer = RELAY_DENY;
  }
  return 0;
}

static int ask_to_peek(void *data, uint64_t call, const relay_conn_info *conn,
                       const relay_agent_info *agents, size_t agent_count,
                       relay_verdict *verdict) {
  struct host *h = data;

  (void)call, (void)agents, (void)agent_count, (void)verdict;
  h->conn = conn->id;
  CHECK_INT(0, relay_peek_conn(h->relay, conn->id, 60000));
  return 0;
}

TEST(first_bytes_are_looked_at) {
  struct host h;
  int fd;

  host_prepare(&h);
  h.policy.visitor = ask_to_peek;
  h.policy.peek = note_peek;
  h.policy.close = note_close;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  fd = visitor_open(h.port);
  visitor_say(fd, "he");
  UNTIL(&h, h.peeks == 1);
  CHECK_INT(UV_EALREADY, relay_peek_conn(h.relay, h.conn, 60000));
  visitor_say(fd, "llo, relay");
  visitor_hears(&h, fd, HELLO);
  CHECK_INT(2, h.peeks);
  visitor_close(fd, true);
  fd = visitor_open(h.port);
  visitor_say(fd, "GET / HTTP/1.0");
  CHECK_INT('r', visitor_ends(&h, fd));
  close(fd);
  UNTIL(&h, h.closes == 2);
  host_finish(&h);
}

/* ---- agent_gone, tick, log -------------------------------------------- */

static uint64_t note_tick(void *data, uint64_t now_ms) {
  struct host *h = data;

  CHECK(now_ms != 0);
  h->ticks++;
  return 2;
}

static int note_log(void *data, const relay_log_record *record) {
  struct host *h = data;

  (void)record;
  h->logs++;
  return h->step; /* 1: dropped */
}

static void host_log(void *data, const relay_log_record *record) {
  (void)record;
  ++*(unsigned *)data;
}

TEST(ticks_and_logs) {
  struct host h;
  unsigned passed_on = 0;

  host_prepare(&h);
  h.policy.tick = note_tick;
  h.policy.log = note_log;
  h.options.log = host_log;
  h.options.log_data = &passed_on;
  h.options.log_level = RELAY_LOG_DEBUG;
  host_start(&h);
  UNTIL(&h, h.established == 1 && h.ticks > 3);
  CHECK(h.logs > 0);
  CHECK_INT(h.logs, passed_on);
  h.step = 1;
  passed_on = h.logs;
  host_visit(&h, h.port);
  host_finish(&h);
  CHECK(h.logs > passed_on); /* made, and dropped by the policy */
}

TEST(agent_gone_says_why) {
  struct host h;

  host_prepare(&h);
  start_with_visitor_hooks(&h);
  host_visit(&h, h.port);
  CHECK_INT(0, relay_close_agent(h.relay, h.agent_id, "enough"));
  CHECK_INT(1, h.gones);
  CHECK_INT(RELAY_EDENIED, h.gone_reason);
  CHECK_INT(UV_ENOENT, relay_close_agent(h.relay, h.agent_id, "enough"));
  UNTIL(&h, h.agent_ends == 1); /* told never to come back */
  host_finish(&h);
  CHECK_INT(1, h.gones);
}

/* ---- calls by id ------------------------------------------------------ */

static int count_conn(void *data, const relay_conn_info *conn) {
  struct host *h = data;

  h->step++;
  h->conn = conn->id;
  return 0;
}

static int count_agent(void *data, const relay_agent_info *agent) {
  struct host *h = data;

  h->step++;
  h->agent_id = agent->id;
  CHECK_STR("me", agent->name);
  return h->step == 1 ? 0 : 7;
}

static int close_each(void *data, const relay_conn_info *conn) {
  struct host *h = data;

  CHECK_INT(0, relay_close_conn(h->relay, conn->id, "all out"));
  return 0;
}

/* A host may know more fields than the library, or fewer. */
TEST(a_struct_is_filled_to_its_size) {
  struct {
    relay_agent_info known;
    char more[16];
  } longer;
  relay_agent_info shorter;
  relay_conn_info conn;
  relay_stats stats;
  struct host h;
  int fd;

  host_prepare(&h);
  h.agent_options.name = "me";
  h.policy.visitor = note_visitor;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  fd = visitor_open(h.port);
  UNTIL(&h, h.visits == 1);
  CHECK_INT(0, relay_each_agent(h.relay, count_agent, &h));
  memset(&longer, 'x', sizeof(longer));
  longer.known.size = sizeof(longer);
  CHECK_INT(0, relay_get_agent(h.relay, h.agent_id, &longer.known));
  CHECK_INT(sizeof(longer.known), longer.known.size);
  CHECK_INT(h.port, longer.known.port);
  for (size_t i = 0; i < sizeof(longer.more); i++)
    CHECK_INT(0, longer.more[i]);
  memset(&shorter, 'x', sizeof(shorter));
  shorter.size = offsetof(relay_agent_info, port);
  CHECK_INT(0, relay_get_agent(h.relay, h.agent_id, &shorter));
  CHECK_INT(offsetof(relay_agent_info, port), shorter.size);
  CHECK_STR("127.0.0.1", shorter.addr);
  CHECK_INT(0x78787878, shorter.port);
  memset(&conn, 'x', sizeof(conn));
  conn.size = offsetof(relay_conn_info, addr);
  CHECK_INT(0, relay_get_conn(h.relay, h.conn, &conn));
  CHECK_INT(h.agent_id, conn.agent);
  CHECK_INT(0x78787878, conn.port);
  conn.size = 0;
  CHECK_INT(UV_EINVAL, relay_get_conn(h.relay, h.conn, &conn));
  memset(&stats, 'x', sizeof(stats));
  stats.size = offsetof(relay_stats, leases);
  relay_get_stats(h.relay, &stats);
  CHECK_INT(1, stats.agents);
  CHECK_INT(0x7878787878787878, stats.leases);
  close(fd);
  host_finish(&h);
}

TEST(calls_by_id) {
  struct host h;
  relay_conn_info conn = {.size = sizeof(conn)};
  relay_agent_info agent = {.size = sizeof(agent)};
  relay_stats stats = {.size = sizeof(stats)};
  relay_limits limits = {.size = sizeof(limits),
                         .rate_in = 1 << 20,
                         .rate_out = -1,
                         .idle_ms = -1};
  int fds[3], i;

  host_prepare(&h);
  h.agent_options.name = "me";
  h.agent_options.pool = 2;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  for (i = 0; i < 3; i++) {
    fds[i] = visitor_open(h.port);
    visitor_say(fds[i], HELLO);
    visitor_hears(&h, fds[i], HELLO);
  }
  CHECK_INT(0, relay_each_conn(h.relay, count_conn, &h));
  CHECK_INT(3, h.step);
  h.step = 0;
  CHECK_INT(0, relay_each_agent(h.relay, count_agent, &h));
  CHECK_INT(7, relay_each_agent(h.relay, count_agent, &h));
  CHECK_INT(0, relay_get_conn(h.relay, h.conn, &conn));
  CHECK_INT(h.agent_id, conn.agent);
  CHECK_INT(strlen(HELLO), conn.bytes_in);
  CHECK_INT(0, relay_get_agent(h.relay, h.agent_id, &agent));
  CHECK_INT(3, agent.conns);
  CHECK_INT(h.port, agent.port);
  UNTIL(&h, (relay_get_stats(h.relay, &stats), stats.waiting == 2));
  CHECK_INT(1, stats.agents);
  CHECK_INT(3, stats.visitors);
  CHECK_INT(3, stats.pairs);
  CHECK_INT(3 * strlen(HELLO), stats.bytes_in);
  CHECK_INT(0, relay_limit_conn(h.relay, h.conn, &limits));
  CHECK_INT(0, relay_limit_agent(h.relay, h.agent_id, &limits));
  CHECK_INT(0, relay_tag_conn(h.relay, h.conn, "user", "somebody"));
  CHECK_INT(0, relay_tag_conn(h.relay, h.conn, "user", NULL));
  limits.size = 4;
  CHECK_INT(UV_EINVAL, relay_limit_conn(h.relay, h.conn, &limits));
  CHECK_INT(UV_EINVAL, relay_limit_agent(h.relay, h.agent_id, &limits));
  limits.size = offsetof(relay_limits, idle_ms); /* an older host's */
  limits.idle_ms = 1;
  CHECK_INT(0, relay_limit_conn(h.relay, h.conn, &limits));
  CHECK_INT(0, relay_limit_agent(h.relay, h.agent_id, &limits));
  limits.size = sizeof(limits);
  CHECK_INT(0, relay_close_conn(h.relay, h.conn, NULL));
  CHECK_INT(UV_ENOENT, relay_close_conn(h.relay, h.conn, NULL));
  CHECK_INT(UV_ENOENT, relay_get_conn(h.relay, h.conn, &conn));
  CHECK_INT(UV_ENOENT, relay_limit_conn(h.relay, h.conn, &limits));
  CHECK_INT(UV_ENOENT, relay_tag_conn(h.relay, h.conn, "user", "x"));
  CHECK_INT(UV_ENOENT, relay_peek_conn(h.relay, h.conn, 100));
  CHECK_INT(UV_ENOENT, relay_get_agent(h.relay, h.conn, &agent));
  CHECK_INT(UV_ENOENT, relay_limit_agent(h.relay, h.conn, &limits));
  CHECK_INT(0, relay_each_conn(h.relay, close_each, &h));
  for (i = 0; i < 3; i++) {
    CHECK_INT('r', visitor_ends(&h, fds[i]));
    close(fds[i]);
  }
  relay_get_stats(h.relay, &stats);
  CHECK_INT(0, stats.visitors);
  CHECK_INT(3 * strlen(HELLO), stats.bytes_out);
  host_finish(&h);
}

TEST(a_gate_of_the_hosts_own) {
  struct host h;
  unsigned port;
  int fd = take_port(&port);

  close(fd);
  host_prepare(&h);
  h.policy.allocate = note_allocate;
  h.verdict.answer = RELAY_PICK;
  h.verdict.port = port;
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  CHECK_INT(UV_EINVAL, relay_listen(h.relay, NULL, 0));
  CHECK_INT(0, relay_listen(h.relay, NULL, port));
  CHECK_INT(0, relay_listen(h.relay, NULL, port));
  h.agent_options.port = relay_port(h.relay);
  CHECK_INT(0, relay_agent_new(&h.agent, &h.loop, &h.agent_options));
  UNTIL(&h, h.established == 1);
  host_visit(&h, port);
  CHECK_INT(0, relay_unlisten(h.relay, port));
  CHECK_INT(UV_ENOENT, relay_unlisten(h.relay, port));
  host_visit(&h, port); /* as long as an agent serves it */
  host_finish(&h);
}

static void listen_in_close(void *data, const relay_conn_info *conn) {
  struct host *h = data;

  (void)conn;
  h->closes++;
  h->step = relay_listen((relay_t *)h->verdict.name, NULL, h->verdict.port);
}

TEST(no_new_gate_on_a_closing_relay) {
  struct host h;
  unsigned port;
  int fd = take_port(&port);

  close(fd);
  host_prepare(&h);
  h.policy.close = listen_in_close;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  fd = visitor_open(h.port);
  visitor_say(fd, HELLO);
  visitor_hears(&h, fd, HELLO);
  h.verdict.name = (const char *)h.relay;
  h.verdict.port = port;
  host_finish(&h);
  CHECK_INT(1, h.closes);
  CHECK_INT(RELAY_EDRAINING, h.step);
  close(fd);
}

/* ---- running out of descriptors --------------------------------------- */

static unsigned visitors_now(struct host *h) {
  relay_stats stats = {.size = sizeof(stats)};

  relay_get_stats(h->relay, &stats);
  return (unsigned)stats.visitors;
}

static void turns(struct host *h, unsigned ms) {
  uint64_t until = uv_hrtime() + ms * UINT64_C(1000000);

  while (uv_hrtime() < until)
    host_turn(h);
}

/* Sends until nothing more is taken; how much that was. */
static size_t stuff(struct host *h, int fd) {
  static const char bytes[65536];
  size_t total = 0;
  unsigned quiet = 0;

  while (quiet < 30) {
    ssize_t count = send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);

    total += count > 0 ? (size_t)count : 0;
    quiet = count > 0 ? 0 : quiet + 1;
    host_turn(h);
  }
  return total;
}

static size_t take_some(int fd) {
  static char bytes[65536];
  ssize_t count = recv(fd, bytes, sizeof(bytes), 0);

  return count > 0 ? (size_t)count : 0;
}

static void take_all(struct host *h, int fd, size_t size) {
  size_t taken = 0;

  UNTIL(h, (taken += take_some(fd), taken >= size));
}

TEST(a_pipe_that_falls_free_lets_a_visitor_in) {
  struct host h;
  int idle, busy, late;
  size_t size;

  host_prepare(&h);
  h.agent_options.pool = 0;
  /* Listener, gate and control, two pairs, and one pipe. */
  h.options.max_fds = 11;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  idle = visitor_open(h.port);
  UNTIL(&h, h.visits == 1);
  busy = visitor_open(h.port);
  size = stuff(&h, busy);
  CHECK_INT(2, visitors_now(&h));
  late = visitor_open(h.port);
  visitor_say(late, HELLO);
  turns(&h, 50);
  CHECK_INT(2, visitors_now(&h)); /* it waits in the backlog */
  take_all(&h, busy, size);
  visitor_hears(&h, late, HELLO);
  CHECK_INT(3, visitors_now(&h));
  visitor_close(idle, true);
  visitor_close(busy, true);
  visitor_close(late, true);
  host_finish(&h);
}

/* A listener that has to wait for a descriptor keeps no loop running: where
   there will never be one, that is said at once. */
TEST(too_few_descriptors_are_an_error) {
  struct host h;
  relay_t *relay = NULL;
  int one, two;

  host_prepare(&h);
  h.options.max_fds = 4;
  CHECK_INT(UV_EMFILE, relay_new(&relay, &h.loop, &h.options));
  CHECK(relay == NULL);
  CHECK_INT(0, uv_run(&h.loop, UV_RUN_DEFAULT));
  h.agent_options.pool = 0;
  h.options.max_fds = 5;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  one = visitor_open(h.port);
  two = visitor_open(h.port); /* it waits */
  visitor_say(one, HELLO);
  visitor_hears(&h, one, HELLO);
  visitor_close(one, true);
  visitor_say(two, HELLO);
  visitor_hears(&h, two, HELLO);
  visitor_close(two, true);
  host_finish(&h);
}

/* What follows `key` in a line, up to the next blank. */
static void find_value(const char *line, const char *key, char *value,
                       size_t size) {
  const char *at = strstr(line, key);

  CHECK(at != NULL);
  at = at != NULL ? at + strlen(key) : "";
  snprintf(value, size, "%.*s", (int)strcspn(at, " \r\n"), at);
}

static void read_text(struct host *h, int fd, const char *until, char *text,
                      size_t size) {
  ssize_t count = 0;

  text[0] = '\0';
  UNTIL(h, ((count = recv(fd, text, size - 1, MSG_PEEK)) > 0) &&
               (text[count] = '\0', strstr(text, until) != NULL));
  count = recv(fd, text, size - 1, 0);
  text[count > 0 ? count : 0] = '\0';
}

/* Data connections count twice for a moment, by themselves and as reserved. A
   visitor who came in that moment is let in once it is over. */
TEST(a_reservation_that_falls_free_lets_a_visitor_in) {
  struct host h;
  char text[2048], session[64], id[64], line[256], port[16];
  const char *at;
  int control, visitors[4], data[3], i;

  host_prepare(&h);
  h.options.max_fds = 12;
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  control = visitor_open(relay_port(h.relay));
  visitor_say(control, "RELAY/1 LISTEN\n");
  read_text(&h, control, "resume=", text, sizeof(text));
  find_value(text, "session=", session, sizeof(session));
  find_value(text, " port=", port, sizeof(port));
  for (i = 0; i < 3; i++)
    visitors[i] = visitor_open((unsigned)atoi(port));
  UNTIL(&h, visitors_now(&h) == 3);
  for (i = 0; i < 3; i++)
    data[i] = visitor_open(relay_port(h.relay));
  turns(&h, 20);
  visitors[3] = visitor_open((unsigned)atoi(port));
  turns(&h, 20);
  CHECK_INT(3, visitors_now(&h));
  read_text(&h, control, "VISITOR", text, sizeof(text));
  for (i = 0, at = text; i < 3 && check_ok_; i++) {
    at = strstr(at, "VISITOR ");
    CHECK(at != NULL);
    find_value(at, "id=", id, sizeof(id));
    at += 8;
    snprintf(line, sizeof(line), "RELAY/1 ACCEPT session=%s id=%s\n", session,
             id);
    visitor_say(data[i], line);
  }
  UNTIL(&h, visitors_now(&h) == 4);
  for (i = 0; i < 3; i++) {
    visitor_close(visitors[i], true);
    visitor_close(data[i], true);
  }
  visitor_close(visitors[3], true);
  close(control);
  h.agent_closed = 1; /* there was none */
  host_finish(&h);
}

/* ---- ends ------------------------------------------------------------- */

static void close_in_close(void *data, const relay_conn_info *conn) {
  struct host *h = data;

  (void)conn;
  h->closes++;
  host_close_relay(h);
}

static void count_drained(void *data) {
  ((struct host *)data)->step++;
}

TEST(closed_is_not_drained_any_more) {
  struct host h;
  int fd;

  host_prepare(&h);
  h.policy.close = close_in_close;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  fd = visitor_open(h.port);
  visitor_say(fd, HELLO);
  visitor_hears(&h, fd, HELLO);
  relay_drain(h.relay, 10, count_drained, &h);
  UNTIL(&h, h.relay_closed == 1);
  CHECK_INT(1, h.closes);
  CHECK_INT(0, h.step);
  close(fd);
  host_finish(&h);
}

static uint64_t unproven_now(struct host *h) {
  relay_stats stats = {.size = sizeof(stats)};

  relay_get_stats(h->relay, &stats);
  return stats.unproven;
}

/* Both are reported at once, and the reset is not told again. */
TEST(half_a_line_and_a_reset_end_at_once) {
  struct host h;
  uint64_t began;
  int fd;

  host_prepare(&h);
  h.options.handshake_ms = 60000;
  h.agent_options.port = 1;
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  fd = visitor_open(relay_port(h.relay));
  UNTIL(&h, unproven_now(&h) == 1);
  visitor_say(fd, "RELAY/1 LIS");
  visitor_close(fd, true);
  began = uv_hrtime();
  UNTIL(&h, unproven_now(&h) == 0);
  CHECK(uv_hrtime() - began < UINT64_C(10000000000));
  h.agent_closed = 1; /* there was none */
  host_finish(&h);
}

/* A whole line with a reset right behind it: whoever said it is gone. */
TEST(a_line_from_one_that_is_gone_opens_nothing) {
  struct host h;
  relay_stats stats = {.size = sizeof(stats)};
  char text[2048], session[64], line[256];
  int control, fd;

  host_prepare(&h);
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  fd = visitor_open(relay_port(h.relay));
  UNTIL(&h, unproven_now(&h) == 1);
  visitor_say(fd, "RELAY/1 LISTEN\n");
  visitor_close(fd, true);
  UNTIL(&h, unproven_now(&h) == 0);
  relay_get_stats(h.relay, &stats);
  CHECK_INT(0, stats.agents);
  CHECK_INT(0, stats.leases);

  control = visitor_open(relay_port(h.relay));
  visitor_say(control, "RELAY/1 LISTEN pool=1\n");
  read_text(&h, control, "resume=", text, sizeof(text));
  find_value(text, "session=", session, sizeof(session));
  fd = visitor_open(relay_port(h.relay));
  UNTIL(&h, unproven_now(&h) == 1);
  snprintf(line, sizeof(line), "RELAY/1 WAIT session=%s n=1\n", session);
  visitor_say(fd, line);
  visitor_close(fd, true);
  UNTIL(&h, unproven_now(&h) == 0);
  relay_get_stats(h.relay, &stats);
  CHECK_INT(0, stats.waiting);
  close(control);
  h.agent_closed = 1; /* there was none */
  host_finish(&h);
}

/* ---- the agent's callbacks -------------------------------------------- */

static void close_on_established(void *data, relay_agent *agent,
                                 const char *host, unsigned port, int fresh) {
  host_established(data, agent, host, port, fresh);
  host_close_agent(data);
}

static void close_on_visitor(void *data, relay_agent *agent,
                             const relay_visitor_info *visitor) {
  struct host *h = data;

  (void)agent, (void)visitor;
  h->visits++;
  host_close_agent(h);
}

static void close_on_visitor_end(void *data, relay_agent *agent,
                                 const relay_visitor_end *end) {
  host_visitor_end(data, agent, end);
  host_close_agent(data);
}

static void close_on_end(void *data, relay_agent *agent, int error,
                         const char *reason) {
  host_agent_end(data, agent, error, reason);
  host_close_agent(data);
}

TEST(agent_closes_in_its_own_callbacks) {
  unsigned pool, place;

  for (pool = 0; pool < 2; pool++)
    for (place = 0; place < 4; place++) {
      struct host h;
      int fd = -1;

      host_prepare(&h);
      h.agent_options.pool = pool;
      if (place == 0)
        h.agent_options.on_established = close_on_established;
      if (place == 1)
        h.agent_options.on_visitor = close_on_visitor;
      if (place == 2)
        h.agent_options.on_visitor_end = close_on_visitor_end;
      if (place == 3)
        h.agent_options.on_end = close_on_end;
      host_start(&h);
      UNTIL(&h, h.established == 1);
      if (place == 1 || place == 2) {
        fd = visitor_open(h.port);
        shutdown(fd, SHUT_WR);
      }
      if (place == 3)
        relay_agent_drain(h.agent, 100);
      UNTIL(&h, h.agent_closed == 1);
      if (fd >= 0)
        close(fd);
      host_finish(&h);
    }
}

static void keep_id(void *data, relay_agent *agent,
                    const relay_visitor_info *visitor) {
  struct host *h = data;

  (void)agent;
  h->visits++;
  h->verdict.host = strdup(visitor->id);
}

static void *take_id(struct host *h) {
  void *id = (void *)h->verdict.host;

  h->verdict.host = NULL;
  return id;
}

TEST(agent_answers_in_every_way) {
  struct host h;
  struct sockaddr_in nowhere = {.sin_family = AF_INET,
                                .sin_port = htons(1),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  char *id;
  int fd, pair[2];

  host_prepare(&h);
  h.agent_options.on_visitor = keep_id;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  CHECK_INT(RELAY_EGONE, relay_agent_serve_echo(h.agent, "no such id"));

  fd = visitor_open(h.port); /* with a socket of the host's own */
  UNTIL(&h, h.visits == 1);
  id = take_id(&h);
  CHECK_INT(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
  CHECK_INT(0, relay_agent_serve_fd(h.agent, id, pair[0]));
  CHECK_INT(UV_EALREADY, relay_agent_serve_echo(h.agent, id));
  visitor_say(fd, HELLO);
  visitor_hears(&h, pair[1], HELLO);
  visitor_say(pair[1], "back");
  visitor_hears(&h, fd, "back");
  CHECK_INT(1, relay_agent_visitors(h.agent));
  close(pair[1]);
  shutdown(fd, SHUT_WR);
  UNTIL(&h, h.visit_ends == 1);
  close(fd);
  free(id);

  fd = visitor_open(h.port); /* turned away */
  UNTIL(&h, h.visits == 2);
  id = take_id(&h);
  CHECK_INT(0, relay_agent_reject(h.agent, id, "not today"));
  CHECK_INT(RELAY_EGONE, relay_agent_reject(h.agent, id, "not today"));
  CHECK_INT('r', visitor_ends(&h, fd));
  close(fd);
  free(id);

  fd = visitor_open(h.port); /* nobody is at that address */
  UNTIL(&h, h.visits == 3);
  id = take_id(&h);
  CHECK_INT(UV_EINVAL, relay_agent_serve_name(h.agent, id, NULL, 0, NULL, 0));
  CHECK_INT(0,
            relay_agent_serve_address(h.agent, id, (struct sockaddr *)&nowhere,
                                      sizeof(nowhere), NULL, 0));
  CHECK_INT('r', visitor_ends(&h, fd));
  close(fd);
  free(id);
  host_finish(&h);
}

static int descriptors_before;

TEST(no_descriptor_is_left) {
  CHECK_INT(descriptors_before, count_descriptors());
}

int main(void) {
  uv_loop_t loop;

  /* libuv keeps what it opens for its first loop. */
  uv_loop_init(&loop);
  uv_loop_close(&loop);
  descriptors_before = count_descriptors();
  RUN(two_of_each_on_one_loop_twice);
  RUN(closing_twice_is_once);
  RUN(drains_and_then_closes);
  RUN(bad_options_leave_nothing);
  RUN(auth_denies);
  RUN(auth_that_fails_denies);
  RUN(answers_that_make_no_sense_deny);
  RUN(auth_is_settled_later);
  RUN(auth_too_late_is_told);
  RUN(auth_of_one_that_left_is_cancelled);
  RUN(settling_before_the_hook_returns);
  RUN(allocate_picks_port_and_host);
  RUN(allocate_picks_what_is_no_host);
  RUN(allocate_denies);
  RUN(allocate_is_asked_sixteen_times);
  RUN(allocate_may_pick_another);
  RUN(allocate_is_settled_later_and_again);
  RUN(open_and_close_are_told_once);
  RUN(visitor_is_denied);
  RUN(visitor_is_settled_later);
  RUN(visitor_too_late_or_gone_is_cancelled);
  RUN(first_bytes_are_looked_at);
  RUN(ticks_and_logs);
  RUN(agent_gone_says_why);
  RUN(a_struct_is_filled_to_its_size);
  RUN(calls_by_id);
  RUN(a_gate_of_the_hosts_own);
  RUN(no_new_gate_on_a_closing_relay);
  RUN(a_pipe_that_falls_free_lets_a_visitor_in);
  RUN(too_few_descriptors_are_an_error);
  RUN(a_reservation_that_falls_free_lets_a_visitor_in);
  RUN(closed_is_not_drained_any_more);
  RUN(half_a_line_and_a_reset_end_at_once);
  RUN(a_line_from_one_that_is_gone_opens_nothing);
  RUN(agent_closes_in_its_own_callbacks);
  RUN(agent_answers_in_every_way);
  RUN(no_descriptor_is_left);
  return check_report();
}
