/* SPDX-License-Identifier: MIT */
/*
 * Pairs and flows over real sockets, each case by splice, by copy, with TLS in
 * the middle, and on threads of their own: the stream arrives exact, its end
 * arrives as what it was, nothing is left.
 */
#include <linux/filter.h>

#include "rig.h"

static relay_mode mode;
static bool secure;

static void open_rig(struct rig *rig, bool echo,
                     const struct pair_limits *limits, int buffer) {
  (secure ? rig_open_secure : rig_open)(rig, mode, echo, limits, buffer);
}

/* Sends all of `count` from one peer while the other reads it. */
static void carry(struct rig *rig, unsigned from, uint64_t count) {
  struct peer *sender = &rig->peers[from];
  struct peer *reader = &rig->peers[rig->peers[1].fd < 0 ? 0 : 1 - from];
  uint64_t goal = sender->sent + count;

  RIG_UNTIL(rig, (sender->sent < goal
                      ? peer_send(sender, (size_t)(goal - sender->sent))
                      : 0,
                  peer_receive(reader, sender->seed, 1 << 18),
                  reader->received >= goal || reader->reset));
  CHECK_INT(goal, reader->received);
}

static void read_end(struct rig *rig, unsigned reader) {
  struct peer *peer = &rig->peers[reader];
  uint64_t seed = rig->peers[rig->peers[1].fd < 0 ? 0 : 1 - reader].seed;

  RIG_UNTIL(rig, (peer_receive(peer, seed, 1 << 18), peer->eof || peer->reset));
}

TEST(carries_both_ways_and_ends_in_order) {
  struct rig rig;

  open_rig(&rig, false, NULL, 0);
  carry(&rig, 0, 3000000);
  carry(&rig, 1, 5000000);
  peer_shut(&rig.peers[0]);
  read_end(&rig, 1);
  CHECK(rig.peers[1].eof);
  carry(&rig, 1, 1 << 20); /* the other half still flows */
  peer_shut(&rig.peers[1]);
  read_end(&rig, 0);
  CHECK(rig.peers[0].eof);
  RIG_UNTIL(&rig, rig_ended(&rig));
  CHECK_INT(0, rig.reason);
  CHECK_INT(3000000, rig.bytes_in);
  CHECK_INT(5000000 + (1 << 20), rig.bytes_out);
  rig_close(&rig);
}

TEST(agent_may_end_first) {
  struct rig rig;

  open_rig(&rig, false, NULL, 0);
  peer_shut(&rig.peers[1]);
  read_end(&rig, 0);
  CHECK(rig.peers[0].eof);
  carry(&rig, 0, 1 << 20);
  peer_shut(&rig.peers[0]);
  read_end(&rig, 1);
  CHECK(rig.peers[1].eof);
  RIG_UNTIL(&rig, rig_ended(&rig));
  CHECK_INT(0, rig.reason);
  rig_close(&rig);
}

TEST(fin_waits_for_held_bytes) {
  struct rig rig;
  struct peer *a, *b;

  open_rig(&rig, false, NULL, 4096);
  a = &rig.peers[0];
  b = &rig.peers[1];
  while (a->sent < 400000) { /* nobody reads: some is held in the pair */
    size_t sent = peer_send(a, 20000);
    int i;

    for (i = 0; i < 5; i++)
      rig_turn(&rig);
    if (sent == 0)
      break;
  }
  peer_shut(a);
  RIG_UNTIL(&rig, (peer_receive(b, a->seed, 3000), b->eof || b->reset));
  CHECK(b->eof);
  CHECK_INT(a->sent, b->received);
  peer_shut(b);
  RIG_UNTIL(&rig, rig_ended(&rig));
  CHECK_INT(0, rig.reason);
  rig_close(&rig);
}

TEST(echo_is_one_flow_to_itself) {
  struct rig rig;

  open_rig(&rig, true, NULL, 0);
  carry(&rig, 0, 2000000);
  peer_shut(&rig.peers[0]);
  read_end(&rig, 0);
  CHECK(rig.peers[0].eof);
  RIG_UNTIL(&rig, rig_ended(&rig));
  CHECK_INT(0, rig.reason);
  rig_close(&rig);
}

TEST(reset_is_passed_on) {
  struct rig rig;
  unsigned from;

  for (from = 0; from < 2; from++) {
    open_rig(&rig, false, NULL, 0);
    carry(&rig, 0, 1000);
    carry(&rig, 1, 1000);
    peer_reset(&rig.peers[from]);
    read_end(&rig, 1 - from);
    CHECK(rig.peers[1 - from].reset);
    RIG_UNTIL(&rig, rig_ended(&rig));
    CHECK_INT(UV_ECONNRESET, rig.reason);
    rig_close(&rig);
  }
}

TEST(bytes_before_a_reset_are_delivered) {
  struct rig rig;
  struct peer *a, *b;

  open_rig(&rig, false, NULL, 0);
  a = &rig.peers[0];
  b = &rig.peers[1];
  while (a->sent < 100000)
    peer_send(a, 100000 - a->sent);
  RIG_UNTIL(&rig, peer_unsent(a) == 0);
  peer_reset(a);
  RIG_UNTIL(&rig, (peer_receive(b, a->seed, 7000), b->eof || b->reset));
  CHECK(b->reset);
  CHECK_INT(100000, b->received);
  RIG_UNTIL(&rig, rig_ended(&rig));
  rig_close(&rig);
}

/* The same with a reader so slow that the pair still holds bytes, and its
   socket too, when the reset comes. */
TEST(bytes_before_a_reset_reach_a_slow_reader) {
  struct rig rig;
  struct peer *a, *b;

  open_rig(&rig, false, NULL, 4096);
  a = &rig.peers[0];
  b = &rig.peers[1];
  while (a->sent < 60000) {
    peer_send(a, 60000 - a->sent);
    rig_turn(&rig);
  }
  RIG_UNTIL(&rig, peer_unsent(a) == 0);
  peer_reset(a);
  rig_turn(&rig);
  RIG_UNTIL(&rig, (peer_receive(b, a->seed, 500), b->eof || b->reset));
  CHECK(b->reset);
  CHECK_INT(60000, b->received);
  rig_close(&rig);
}

TEST(reset_after_fin_is_a_reset) {
  struct rig rig;

  open_rig(&rig, false, NULL, 0);
  peer_shut(&rig.peers[0]);
  read_end(&rig, 1);
  CHECK(rig.peers[1].eof);
  peer_reset(&rig.peers[0]);
  RIG_UNTIL(&rig, rig_ended(&rig));
  CHECK(rig.reason < 0);
  CHECK_INT(0, peer_send(&rig.peers[1], 10));
  rig_close(&rig);
}

/* Turns of the loop that do something, within a tenth of a second. */
static unsigned count_turns(struct rig *rig) {
  uint64_t until = uv_hrtime() + 100000000ull;
  struct pollfd wait = {uv_backend_fd(&rig->loop), POLLIN, 0};
  unsigned busy = 0;

  while (uv_hrtime() < until) {
    busy += poll(&wait, 1, 5) > 0;
    uv_run(&rig->loop, UV_RUN_NOWAIT);
  }
  return busy;
}

TEST(urgent_byte_is_delivered_in_line) {
  struct rig rig;
  struct peer *a, *b;
  unsigned char urgent;

  open_rig(&rig, false, NULL, 0);
  a = &rig.peers[0];
  b = &rig.peers[1];
  carry(&rig, 0, 1000);
  urgent = pattern(a->seed, a->sent);
  CHECK_INT(1, send(a->fd, &urgent, 1, MSG_OOB));
  a->sent++;
  carry(&rig, 0, 5000);
  CHECK_INT(6001, b->received);
  CHECK(count_turns(&rig) < 10); /* and nothing spins */
  rig_close(&rig);
}

static unsigned told;

static void note_event(struct stream *stream, int events) {
  (void)events;
  told += stream->reset;
}

/* While a stream is only watched for its end. */
TEST(a_reset_behind_an_urgent_byte_is_told_once) {
  struct stream *stream = NULL;
  struct rig rig;

  rig_init(&rig, mode);
  rig_connect(&rig, &rig.peers[0], &stream, 0);
  told = 0;
  relay__stream_own(stream, note_event, NULL);
  CHECK_INT(0, relay__stream_watch(stream, 0));
  peer_send_urgent(&rig.peers[0]);
  peer_reset(&rig.peers[0]);
  RIG_UNTIL(&rig, told != 0);
  CHECK(count_turns(&rig) < 10);
  CHECK_INT(1, told);
  relay__stream_close(stream);
  rig_close(&rig);
}

TEST(urgent_byte_to_a_full_pair_does_not_spin) {
  struct rig rig;
  struct peer *a, *b;
  unsigned char urgent;
  unsigned quiet = 0;

  open_rig(&rig, false, NULL, 4096);
  a = &rig.peers[0];
  b = &rig.peers[1];
  while (quiet < 20) {
    quiet = peer_send(a, 20000) != 0 ? 0 : quiet + 1;
    rig_turn(&rig);
  }
  urgent = pattern(a->seed, a->sent);
  a->sent += send(a->fd, &urgent, 1, MSG_OOB | MSG_DONTWAIT) == 1;
  CHECK(count_turns(&rig) < 10);
  RIG_UNTIL(&rig, (peer_receive(b, a->seed, 9000), b->received == a->sent));
  rig_close(&rig);
}

struct resetter {
  uv_poll_t poll;
  struct rig *rig;
};

static void reset_now(uv_poll_t *poll, int status, int events) {
  struct resetter *resetter = poll->data;

  (void)status, (void)events;
  uv_poll_stop(poll);
  peer_reset(&resetter->rig->peers[1]);
}

/* The reset comes after the loop has asked what is new and before the pair
   writes: then a write finds it, and poll would report a dead socket for ever,
   here as long as the other side does not read what came before. */
TEST(reset_found_by_a_write_does_not_spin) {
  struct resetter resetter;
  struct rig rig;
  unsigned turns = 0;
  uint64_t until;
  int fds[2];

  open_rig(&rig, false, NULL, 8192);
  RIG_UNTIL(&rig, (peer_send(&rig.peers[1], 4096),
                   relay__pair_bytes_out(rig.pair) > 65536 &&
                       peer_unsent(&rig.peers[1]) > 0));
  CHECK_INT(0, pipe(fds));
  resetter.rig = &rig;
  resetter.poll.data = &resetter;
  uv_poll_init(&rig.loop, &resetter.poll, fds[0]);
  uv_poll_start(&resetter.poll, UV_READABLE, reset_now);
  uv_run(&rig.loop, UV_RUN_NOWAIT);
  CHECK_INT(1, write(fds[1], "x", 1)); /* first in line */
  CHECK_INT(100, peer_send(&rig.peers[0], 100));
  for (until = uv_hrtime() + 300000000; uv_hrtime() < until; turns++)
    rig_turn(&rig);
  CHECK(rig.peers[1].closed);
  CHECK(turns < 1000);
  uv_close((uv_handle_t *)&resetter.poll, NULL);
  close(fds[0]);
  close(fds[1]);
  peer_reset(&rig.peers[0]);
  RIG_UNTIL(&rig, rig_ended(&rig));
  rig_close(&rig);
}

TEST(one_byte_segments_fill_no_trap) {
  struct rig rig;
  struct peer *a, *b;
  unsigned i;

  open_rig(&rig, false, NULL, 0);
  a = &rig.peers[0];
  b = &rig.peers[1];
  for (i = 0; i < 20000; i++) {
    peer_send(a, 1);
    if (i % 500 == 0)
      rig_turn(&rig);
  }
  RIG_UNTIL(&rig, (peer_receive(b, a->seed, 1 << 18), b->received == a->sent));
  rig_close(&rig);
}

static int option_of(const struct stream *stream, int option) {
  int value = 0;
  socklen_t length = sizeof(value);

  CHECK_INT(0, getsockopt(stream->fd, IPPROTO_TCP, option, &value, &length));
  return value;
}

/* Large reads are of whole ones, or each would end in a small one. */
TEST(bulk_knows_the_segments_of_its_sink) {
  struct rig rig;
  unsigned pipes;

  open_rig(&rig, false, NULL, 0);
  pipes = !secure && mode != RELAY_MODE_COPY && rig.pair->worker == NULL;
  carry(&rig, 0, 1000);
  CHECK_INT(0, rig.pair->flows[0].segment);
  carry(&rig, 0, 8 << 20);
  if (pipes) {
    CHECK_INT(option_of(rig.pair->streams[1], TCP_MAXSEG),
              rig.pair->flows[0].segment);
    CHECK_INT(0, rig.pair->flows[1].segment);
  } else if (rig.pair->worker == NULL) {
    CHECK_INT(0, rig.pair->flows[0].segment);
  }
  rig_close(&rig);
}

static unsigned free_pipes(struct rig *rig) {
  return rig->plane.pool.pipes_free;
}

/* A pipe, once made, is kept for the next. */
TEST(only_large_reads_want_a_pipe) {
  bool splices = !secure && mode != RELAY_MODE_COPY;
  struct rig rig;
  unsigned i;

  open_rig(&rig, false, NULL, 0);
  for (i = 0; i < 20; i++) {
    carry(&rig, 0, 1000);
    CHECK_INT(splices && mode == RELAY_MODE_SPLICE, free_pipes(&rig));
    CHECK(!rig.pair->flows[0].wide);
  }
  carry(&rig, 0, 40000); /* more than is read by copy */
  CHECK_INT(splices, free_pipes(&rig));
  for (i = 0; i < 20; i++) {
    carry(&rig, 0, 4 << 20);
    carry(&rig, 1, 100);
    CHECK_INT(splices, free_pipes(&rig));
  }
  rig_close(&rig);
}

TEST(stalled_reader_holds_the_sender) {
  struct rig rig;
  struct peer *a, *b;
  unsigned quiet = 0;

  open_rig(&rig, false, NULL, 4096);
  a = &rig.peers[0];
  b = &rig.peers[1];
  while (quiet < 50) {
    quiet = peer_send(a, 200000) != 0 ? 0 : quiet + 1;
    rig_turn(&rig);
  }
  if (rig.pair != NULL && rig.pair->flows[0].hold != NULL)
    CHECK(rig.pair->flows[0].hold->length +
              relay__stream_unsent(rig.pair->streams[1]) <=
          512 * 1024);
  else
    CHECK(!"a hold");
  CHECK(count_turns(&rig) < 10);
  RIG_UNTIL(&rig, (peer_receive(b, a->seed, 1 << 18), b->received == a->sent));
  CHECK(rig.pair != NULL);
  rig_close(&rig);
}

TEST(half_closed_and_silent_is_reset) {
  struct pair_limits limits = {.fin_timeout_ms = 50};
  struct rig rig;

  open_rig(&rig, false, &limits, 0);
  carry(&rig, 0, 10);
  CHECK(count_turns(&rig) < 10);
  CHECK_INT(0, rig.ends); /* silence alone is allowed */
  peer_shut(&rig.peers[0]);
  RIG_UNTIL(&rig, rig_ended(&rig));
  CHECK_INT(UV_ETIMEDOUT, rig.reason);
  read_end(&rig, 0);
  CHECK(rig.peers[0].reset);
  rig_close(&rig);
}

/* An end after a long silence has its answer awaited like any other. */
TEST(half_closed_after_a_silence_has_its_time) {
  struct pair_limits limits = {.fin_timeout_ms = 1000};
  struct rig rig;
  uint64_t until;

  open_rig(&rig, false, &limits, 0);
  carry(&rig, 0, 10);
  until = uv_hrtime() + 1100 * UINT64_C(1000000);
  RIG_UNTIL(&rig, uv_hrtime() > until);
  peer_shut(&rig.peers[0]);
  read_end(&rig, 1);
  CHECK(rig.peers[1].eof);
  carry(&rig, 1, 10);
  peer_shut(&rig.peers[1]);
  read_end(&rig, 0);
  CHECK(rig.peers[0].eof);
  RIG_UNTIL(&rig, rig_ended(&rig));
  CHECK_INT(0, rig.reason);
  rig_close(&rig);
}

TEST(idle_is_reset) {
  struct pair_limits limits = {.idle_ms = 50};
  struct rig rig;

  open_rig(&rig, false, &limits, 0);
  carry(&rig, 0, 10);
  RIG_UNTIL(&rig, rig_ended(&rig));
  CHECK_INT(UV_ETIMEDOUT, rig.reason);
  rig_close(&rig);
}

/* A policy that shares a rate among all sets it again and again. */
TEST(a_rate_is_no_sign_of_life) {
  struct pair_limits limits = {.idle_ms = 200};
  uint64_t until = uv_hrtime() + UINT64_C(20000000000);
  struct rig rig;

  open_rig(&rig, false, &limits, 0);
  carry(&rig, 0, 10);
  while (rig.pair != NULL && uv_hrtime() < until) {
    limits.rate_in = limits.rate_in == 1000000 ? 2000000 : 1000000;
    relay__crew_limit(rig.pair, &limits);
    rig_turn(&rig);
  }
  RIG_UNTIL(&rig, rig_ended(&rig));
  CHECK(uv_hrtime() < until);
  CHECK_INT(UV_ETIMEDOUT, rig.reason);
  rig_close(&rig);
}

TEST(rate_limit_lets_its_rate_through) {
  struct pair_limits limits = {.rate_in = 1000000};
  uint64_t start = uv_hrtime();
  struct rig rig;
  struct peer *a, *b;

  open_rig(&rig, false, &limits, 0);
  a = &rig.peers[0];
  b = &rig.peers[1];
  RIG_UNTIL(&rig, (a->sent < 500000 ? peer_send(a, 500000 - a->sent) : 0,
                   peer_receive(b, a->seed, 1 << 18), b->received == 500000));
  /* A burst of 125 000 is free; the rest takes its time. Slower is never
     wrong on a busy machine, faster is. */
  CHECK(uv_hrtime() - start > 300000000ull);
  limits.rate_in = 0;
  relay__crew_limit(rig.pair, &limits);
  carry(&rig, 0, 10000000);
  rig_close(&rig);
}

/* Whoever sets a limit again and again gives nothing away by that. */
TEST(a_rate_set_often_gives_nothing) {
  struct rate_limit limit = {0, 0, 0};
  uint64_t now = 1000, taken = 0;

  for (unsigned i = 0; i < 1000; i++, now++) {
    relay__rate_set(&limit, 8000 + (i % 2) * 8000, now);
    relay__rate_refill(&limit, now);
    taken += limit.allowance;
    relay__rate_take(&limit, limit.allowance);
  }
  /* A burst, and then what a second is worth. */
  CHECK(taken >= 1000 + 8000 - 8 && taken <= 2000 + 16000);
  relay__rate_set(&limit, 0, now);
  relay__rate_set(&limit, 8000, now);
  CHECK_INT(1000, limit.allowance); /* one that is new begins with a burst */
}

static void check_spread(const struct stream *stream, int idle_s,
                         int interval_s, int count) {
  CHECK_INT(idle_s, option_of(stream, TCP_KEEPIDLE));
  CHECK_INT(interval_s, option_of(stream, TCP_KEEPINTVL));
  CHECK_INT(count, option_of(stream, TCP_KEEPCNT));
}

static void spread_again(struct rig *rig, unsigned turn) {
  rig->plane.spread = turn;
  relay__stream_keep_alive(rig->pair->streams[0]);
}

/* Or the questions to thousands of them would all be asked at once, and lost.
 */
TEST(silent_peers_are_asked_one_after_the_other) {
  struct rig rig;
  struct stream *stream;

  open_rig(&rig, false, NULL, 0);
  stream = rig.pair->streams[0];
  CHECK_INT(60, rig.plane.keepalive.idle_s);
  if (!secure && rig.pair->worker == NULL) {
    check_spread(stream, 60, 10, 6);
    RIG_UNTIL(&rig, rig.pair->young_ms == 0);
    check_spread(stream, 60, 3, 20);
    check_spread(rig.pair->streams[1], 59, 3, 20);
    spread_again(&rig, 29);
    check_spread(stream, 31, 3, 20);
    spread_again(&rig, 30);
    check_spread(stream, 60, 5, 12);
    spread_again(&rig, 3 * 30 + 29);
    check_spread(stream, 31, 9, 6);
    spread_again(&rig, 4 * 30);
    check_spread(stream, 60, 3, 20);
    rig.plane.keepalive = (struct keepalive){1, 1, 1};
    spread_again(&rig, 7);
    check_spread(stream, 1, 1, 1);
    rig.plane.keepalive = (struct keepalive){2, 32767, 127};
    spread_again(&rig, 7);
    check_spread(stream, 2, 8205, 127);
  }
  rig_close(&rig);
}

/* However long: the window's probes are answered. That of a vanished one is in
   tests/lua/test_life.lua. */
TEST(a_reader_that_stops_lives_on) {
  uint64_t until = uv_hrtime() + 3500000000ull;
  struct rig rig;
  struct peer *a, *b;

  open_rig(&rig, false, NULL, 1 << 14);
  rig.plane.keepalive = (struct keepalive){0, 1, 1};
  a = &rig.peers[0];
  b = &rig.peers[1];
  while (uv_hrtime() < until && rig.pair != NULL) {
    peer_send(a, 1 << 18);
    rig_turn(&rig);
  }
  CHECK(rig.pair != NULL && rig.pair->deaf_ms != 0); /* it has looked */
  RIG_UNTIL(&rig, (peer_receive(b, a->seed, 1 << 18),
                   b->received == a->sent || b->reset));
  CHECK_INT(a->sent, b->received);
  rig_close(&rig);
}

/* From now on the kernel drops what comes for the peer, or not any more. */
static void set_deaf(const struct peer *peer, bool deaf) {
  struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
  struct sock_fprog filter = {1, &drop};

  CHECK_INT(0, setsockopt(peer->fd, SOL_SOCKET,
                          deaf ? SO_ATTACH_FILTER : SO_DETACH_FILTER, &filter,
                          sizeof(filter)));
}

static int state_of(int fd) {
  struct tcp_info info;
  socklen_t length = sizeof(info);

  CHECK_INT(0, getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
  return info.tcpi_state;
}

/* Once both FINs of a connection are on their way the kernel sends no reset for
   it. What is on its way must arrive all the same, or the peer would wait for
   ever. */
TEST(a_cut_after_both_fins_leaves_nobody_waiting) {
  struct rig rig;
  struct peer *a, *b;

  if (secure) /* it is between the two pairs that TLS is */
    return;
  open_rig(&rig, false, NULL, 1 << 16);
  a = &rig.peers[0];
  b = &rig.peers[1];
  /* `a` has sent its FIN, which waits behind bytes that `b` does not read. */
  RIG_UNTIL(&rig, rig.pair->flows[0].blocked || (peer_send(a, 1 << 12), false));
  peer_shut(a);
  RIG_UNTIL(&rig, state_of(a->fd) == TCP_FIN_WAIT2);
  /* That of `b` is passed on, and lost. */
  set_deaf(a, true);
  CHECK_INT(1000, peer_send(b, 1000));
  peer_shut(b);
  RIG_UNTIL(&rig, rig.pair->flows[1].phase == FLOW_SHUT);
  peer_reset(b);
  RIG_UNTIL(&rig, rig_ended(&rig));
  CHECK(rig.reason < 0);
  set_deaf(a, false);
  read_end(&rig, 0);
  CHECK(a->reset || a->received == 1000);
  rig_close(&rig);
}

/* ---- any schedule ----------------------------------------------------- */

static uint64_t random_state;

static unsigned dice(unsigned sides) {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(random_state >> 33) % sides;
}

static void act(struct rig *rig, unsigned index) {
  struct peer *peer = &rig->peers[index];
  unsigned what = dice(100);

  if (peer->closed || peer->reset)
    return;
  if (what < 40 && !peer->shut)
    peer_send(peer, 1 + dice(what < 10 ? 200000 : 3000));
  else if (what < 80)
    peer_receive(peer, rig->peers[1 - index].seed, 1 + dice(100000));
  else if (what == 80 && !peer->shut)
    peer_shut(peer);
  else if (what == 81 && dice(3) == 0)
    peer_reset(peer);
  else if (what == 82 && !peer->shut)
    peer_send_urgent(peer);
}

/* What one side saw must be explained by what the other did. */
static void judge(struct rig *rig, unsigned index) {
  const struct peer *peer = &rig->peers[index];
  const struct peer *other = &rig->peers[1 - index];

  CHECK(peer->received <= other->sent);
  if (!peer->eof)
    return;
  CHECK(other->shut);
  CHECK_INT(other->sent, peer->received);
}

static void run_schedule(uint64_t seed) {
  struct rig rig;
  unsigned i;

  random_state = seed;
  open_rig(&rig, false, NULL, dice(2) ? 8192 : 0);
  for (i = 0; i < 400 && rig.pair != NULL; i++) {
    act(&rig, dice(2));
    if (dice(3) == 0)
      uv_run(&rig.loop, UV_RUN_NOWAIT);
  }
  for (i = 0; i < 2; i++)
    if (!rig.peers[i].closed && !rig.peers[i].shut)
      peer_shut(&rig.peers[i]);
  RIG_UNTIL(&rig, (peer_receive(&rig.peers[0], rig.peers[1].seed, 1 << 18),
                   peer_receive(&rig.peers[1], rig.peers[0].seed, 1 << 18),
                   rig_ended(&rig)));
  for (i = 0; i < 2; i++) {
    if (!rig.peers[i].closed)
      read_end(&rig, i);
    judge(&rig, i);
  }
  if (!rig.peers[0].closed && !rig.peers[1].closed)
    CHECK_INT(0, rig.reason);
  else
    CHECK(rig.reason < 0 || (rig.peers[0].shut && rig.peers[1].shut));
  rig_close(&rig);
}

TEST(any_schedule_ends_exact) {
  uint64_t seed;

  for (seed = 1; seed <= (rig_workers != 0 ? 100 : 300) && check_ok_; seed++) {
    run_schedule(seed);
    if (!check_ok_)
      fprintf(stderr, "seed %llu, mode %d\n", (unsigned long long)seed, mode);
  }
}

static void run_all(void) {
  RUN(carries_both_ways_and_ends_in_order);
  RUN(agent_may_end_first);
  RUN(fin_waits_for_held_bytes);
  RUN(echo_is_one_flow_to_itself);
  RUN(reset_is_passed_on);
  RUN(bytes_before_a_reset_are_delivered);
  RUN(bytes_before_a_reset_reach_a_slow_reader);
  RUN(reset_after_fin_is_a_reset);
  RUN(urgent_byte_is_delivered_in_line);
  RUN(a_reset_behind_an_urgent_byte_is_told_once);
  RUN(urgent_byte_to_a_full_pair_does_not_spin);
  RUN(one_byte_segments_fill_no_trap);
  RUN(bulk_knows_the_segments_of_its_sink);
  RUN(half_closed_and_silent_is_reset);
  RUN(half_closed_after_a_silence_has_its_time);
  RUN(idle_is_reset);
  RUN(silent_peers_are_asked_one_after_the_other);
  RUN(a_reader_that_stops_lives_on);
  RUN(a_rate_set_often_gives_nothing);
  RUN(a_rate_is_no_sign_of_life);
  RUN(rate_limit_lets_its_rate_through);
  RUN(a_cut_after_both_fins_leaves_nobody_waiting);
  RUN(any_schedule_ends_exact);
  if (rig_workers != 0)
    return;
  /* These look inside a pair, or need to know when its loop turns. */
  RUN(only_large_reads_want_a_pipe);
  RUN(reset_found_by_a_write_does_not_spin);
  RUN(stalled_reader_holds_the_sender);
}

int main(void) {
  mode = RELAY_MODE_AUTO;
  run_all();
  mode = RELAY_MODE_SPLICE;
  run_all();
  mode = RELAY_MODE_COPY;
  run_all();
  secure = true;
  mode = RELAY_MODE_SPLICE; /* which TLS refuses */
  run_all();
  rig_workers = 2;
  run_all();
  secure = false;
  run_all();
  return check_report();
}
