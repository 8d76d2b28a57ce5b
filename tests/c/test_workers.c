/* SPDX-License-Identifier: MIT */
/*
 * Worker threads as a host sees them: not at all. Both halves move bytes on
 * threads of their own, and every hook and callback comes on the thread of the
 * loop, once for each visitor, whatever ends it.
 */
#include "host.h"

#define MANY 40

static uv_thread_t home;

static void check_home(void) {
  uv_thread_t here = uv_thread_self();

  CHECK(uv_thread_equal(&home, &here));
}

static int on_visitor(void *data, uint64_t call, const relay_conn_info *conn,
                      const relay_agent_info *agents, size_t agent_count,
                      relay_verdict *verdict) {
  struct host *h = data;

  (void)call, (void)agents, (void)agent_count, (void)verdict;
  check_home();
  h->visitors++;
  h->conn = conn->id;
  h->agent_id = agents[0].id;
  return 0;
}

static void on_open(void *data, const relay_conn_info *conn) {
  (void)conn;
  check_home();
  ((struct host *)data)->opens++;
}

static void on_close(void *data, const relay_conn_info *conn) {
  struct host *h = data;

  check_home();
  h->closes++;
  h->closed_conn = *conn;
}

static void on_log(void *data, const relay_log_record *record) {
  (void)record;
  check_home();
  ((struct host *)data)->logs++;
}

static void start(struct host *h, const char *tokens, const char *token) {
  home = uv_thread_self();
  host_prepare(h);
  h->policy.visitor = on_visitor;
  h->policy.open = on_open;
  h->policy.close = on_close;
  h->options.workers = 2;
  h->options.log = h->agent_options.log = on_log;
  h->options.log_data = h->agent_options.log_data = h;
  h->options.log_level = RELAY_LOG_DEBUG;
  h->options.tokens = tokens;
  h->agent_options.token = token;
  h->agent_options.workers = 2;
  host_start(h);
  UNTIL(h, h->established == 1);
}

/* A visitor that was joined at both ends. */
static int join(struct host *h) {
  int fd = visitor_open(h->port);

  visitor_say(fd, HELLO);
  visitor_hears(h, fd, HELLO);
  return fd;
}

static relay_stats stats_of(struct host *h) {
  relay_stats stats = {.size = sizeof(stats)};

  relay_get_stats(h->relay, &stats);
  return stats;
}

static void check_closed(struct host *h, unsigned count, int reason) {
  UNTIL(h, h->closes == count && h->visit_ends == h->visits);
  CHECK_INT(reason, h->closed_conn.reason);
  CHECK_INT(0, stats_of(h).pairs);
}

TEST(an_orderly_end_is_told_once_with_all_bytes) {
  struct host h;

  start(&h, NULL, NULL);
  host_visit(&h, h.port);
  check_closed(&h, 1, 0);
  CHECK_INT(strlen(HELLO), h.closed_conn.bytes_in);
  CHECK_INT(strlen(HELLO), h.closed_conn.bytes_out);
  CHECK_INT(strlen(HELLO), stats_of(&h).bytes_out);
  host_finish(&h);
  CHECK_INT(1, h.opens);
}

TEST(a_reset_is_told_once) {
  struct host h;

  start(&h, NULL, NULL);
  visitor_close(join(&h), true);
  check_closed(&h, 1, UV_ECONNRESET);
  host_finish(&h);
}

TEST(the_host_may_close_and_limit_a_pair) {
  relay_limits limits = {sizeof(limits), 1 << 20, -1, 20};
  struct host h;
  int fd;

  start(&h, NULL, NULL);
  fd = join(&h);
  CHECK_INT(0, relay_close_conn(h.relay, h.conn, "enough"));
  CHECK_INT(UV_ENOENT, relay_close_conn(h.relay, h.conn, "enough"));
  CHECK_INT(1, h.closes);
  CHECK_INT('r', visitor_ends(&h, fd));
  close(fd);
  check_closed(&h, 1, RELAY_ELIMIT);
  fd = join(&h);
  CHECK_INT(0, relay_limit_conn(h.relay, h.conn, &limits)); /* idle: 20 ms */
  CHECK_INT('r', visitor_ends(&h, fd));
  close(fd);
  check_closed(&h, 2, UV_ETIMEDOUT);
  host_finish(&h);
}

TEST(an_agent_is_closed_with_all_its_pairs) {
  struct host h;
  int fds[MANY];

  start(&h, NULL, NULL);
  for (unsigned i = 0; i < MANY; i++)
    fds[i] = join(&h);
  CHECK_INT(MANY, stats_of(&h).pairs);
  CHECK_INT(0, relay_close_agent(h.relay, h.agent_id, NULL));
  CHECK_INT(MANY, h.closes);
  for (unsigned i = 0; i < MANY; i++) {
    CHECK_INT('r', visitor_ends(&h, fds[i]));
    close(fds[i]);
  }
  host_finish(&h);
  CHECK_INT(MANY, h.closes);
}

static void on_drained(void *data) {
  check_home();
  ((struct host *)data)->step++;
}

TEST(a_drain_waits_for_pairs_of_workers) {
  struct host h;
  int fd;

  start(&h, NULL, NULL);
  fd = join(&h);
  relay_drain(h.relay, 60000, on_drained, &h);
  visitor_say(fd, HELLO);
  visitor_hears(&h, fd, HELLO);
  CHECK_INT(0, h.step);
  shutdown(fd, SHUT_WR);
  CHECK_INT('e', visitor_ends(&h, fd));
  close(fd);
  UNTIL(&h, h.step == 1);
  CHECK_INT(1, h.closes);
  host_finish(&h);
}

/* Pairs begin and end while the relay closes, at every stage of both. */
static void churn(struct host *h, unsigned rounds) {
  for (unsigned i = 0; i < rounds; i++) {
    int fd = join(h);

    if (i % 3 == 0)
      relay_close_conn(h->relay, h->conn, NULL);
    if (i % 3 == 1)
      visitor_say(fd, HELLO);
    visitor_close(fd, i % 2 == 0);
  }
}

TEST(closing_with_pairs_at_every_stage) {
  struct host h;

  for (unsigned round = 0; round < 10; round++) {
    start(&h, NULL, NULL);
    churn(&h, round * 3);
    for (unsigned i = 0; i < 4; i++) {
      int fd = visitor_open(h.port);

      visitor_say(fd, HELLO);
      close(fd);
    }
    for (unsigned i = 0; i < round; i++)
      host_turn(&h);
    host_finish(&h);
    CHECK_INT(h.visitors, h.closes);
  }
}

/* What OpenSSL has decrypted before the pair is joined goes along with it. */
TEST(tls_changes_threads_with_its_pair) {
  char path[] = "/tmp/relay-test.XXXXXX", tokens[64], error[256];
  char text[RELAY_TOKEN_SIZE];
  relay_token token = {.size = sizeof(token), .id = "test"};
  struct host h;

  CHECK(mkdtemp(path) != NULL);
  snprintf(tokens, sizeof(tokens), "%s/tokens", path);
  CHECK_INT(0, relay_token_new(tokens, &token, text, sizeof(text), error,
                               sizeof(error)));
  start(&h, tokens, text);
  churn(&h, 12);
  for (unsigned i = 0; i < MANY; i++)
    host_visit(&h, h.port);
  UNTIL(&h, h.closes == 12 + MANY);
  host_finish(&h);
  unlink(tokens);
  rmdir(path);
}

TEST(workers_beyond_reason_are_refused) {
  relay_options options;

  relay_options_init(&options, sizeof(options));
  CHECK_INT(0, options.workers);
  options.workers = 65;
  CHECK_STR("workers", relay_options_fault(&options));
}

int main(void) {
  RUN(an_orderly_end_is_told_once_with_all_bytes);
  RUN(a_reset_is_told_once);
  RUN(the_host_may_close_and_limit_a_pair);
  RUN(an_agent_is_closed_with_all_its_pairs);
  RUN(a_drain_waits_for_pairs_of_workers);
  RUN(closing_with_pairs_at_every_stage);
  RUN(tls_changes_threads_with_its_pair);
  RUN(workers_beyond_reason_are_refused);
  return check_report();
}
