/* SPDX-License-Identifier: MIT */
/*
 * A crew of several threads, and the border between them and their owner: which
 * of them gets a pair, what may cross at any moment, and that each pair ends
 * exactly once, whatever its peers and its owner do at the same time.
 */
#include "rig.h"

#define WORKERS 3
#define PAIRS 24
#define STEPS 20000

/* A pair and the peers at both of its ends. */
struct member {
  struct stage *stage;
  struct pair *pair; /* NULL: it has ended or was dropped */
  struct peer peers[2];
  unsigned ends;
  bool dropped;
  bool echo;
  int reason;
  uint64_t bytes_in;
};

struct stage {
  struct rig rig;
  struct member members[PAIRS];
  unsigned news; /* descriptors that were told to be free */
};

static uint64_t random_state;

static unsigned dice(unsigned sides) {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(random_state >> 33) % sides;
}

static void on_end(struct pair *pair, int reason) {
  struct member *member = pair->owner;

  CHECK(pair == member->pair);
  CHECK(!member->dropped);
  member->ends++;
  member->reason = reason;
  member->bytes_in = relay__pair_bytes_in(pair);
  member->pair = NULL;
}

static void on_descriptor(struct plane *plane) {
  struct stage *stage = plane->owner;

  stage->news++;
}

static void open_stage(struct stage *stage, unsigned workers) {
  memset(stage, 0, sizeof(*stage));
  rig_workers = workers;
  rig_init(&stage->rig, RELAY_MODE_SPLICE);
  stage->rig.plane.owner = stage;
  stage->rig.plane.on_descriptor = on_descriptor;
  stage->rig.peers[0].closed = stage->rig.peers[1].closed = true;
}

static struct member *enter(struct stage *stage, unsigned index, bool echo,
                            const struct pair_limits *limits) {
  static const struct pair_limits none;
  struct member *member = &stage->members[index];
  struct stream *a = NULL, *b = NULL;

  memset(member, 0, sizeof(*member));
  member->stage = stage;
  member->echo = echo;
  member->peers[0].seed = 17 + index;
  member->peers[1].seed = 4711 + index;
  member->peers[1].closed = echo;
  rig_connect(&stage->rig, &member->peers[0], &a, 0);
  if (!echo)
    rig_connect(&stage->rig, &member->peers[1], &b, 0);
  CHECK_INT(0, relay__crew_start(&member->pair, &stage->rig.crew, a, b,
                                 limits ? limits : &none, on_end, member));
  return member;
}

static void drop(struct member *member) {
  member->dropped = true;
  relay__crew_drop(member->pair, UV_ECANCELED);
  member->pair = NULL;
}

static void leave(struct member *member) {
  for (unsigned i = 0; i < 2 && member->stage != NULL; i++)
    if (!member->peers[i].closed)
      close(member->peers[i].fd), member->peers[i].closed = true;
}

static void close_stage(struct stage *stage) {
  unsigned i;

  for (i = 0; i < PAIRS; i++)
    if (stage->members[i].pair != NULL)
      drop(&stage->members[i]);
  rig_close(&stage->rig);
  for (i = 0; i < PAIRS; i++)
    leave(&stage->members[i]);
  rig_workers = 0;
}

/* ---- who gets it ------------------------------------------------------ */

TEST(the_one_with_the_fewest_pairs_gets_the_next) {
  struct stage stage;
  struct worker *workers;
  unsigned i;

  open_stage(&stage, WORKERS);
  workers = stage.rig.crew.workers;
  for (i = 0; i < 12; i++)
    enter(&stage, i, i % 4 == 0, NULL);
  for (i = 0; i < WORKERS; i++)
    CHECK_INT(4, workers[i].pairs);
  CHECK(stage.members[0].pair->worker == stage.members[3].pair->worker);
  for (i = 0; i < 12; i += WORKERS) { /* all of one of them */
    peer_reset(&stage.members[i].peers[0]);
    RIG_UNTIL(&stage.rig, stage.members[i].ends == 1);
  }
  CHECK_INT(0, workers[0].pairs);
  for (i = 12; i < 16; i++)
    CHECK(enter(&stage, i, false, NULL)->pair->worker == &workers[0]);
  for (i = 0; i < WORKERS; i++)
    CHECK_INT(4, workers[i].pairs);
  close_stage(&stage);
}

TEST(few_pairs_are_spread_as_well) {
  struct stage stage;
  unsigned used = 0;

  open_stage(&stage, WORKERS);
  for (unsigned i = 0; i < WORKERS; i++) {
    struct member *member = enter(&stage, i, true, NULL);

    used |= 1u << (member->pair->worker - stage.rig.crew.workers);
    peer_reset(&member->peers[0]);
    RIG_UNTIL(&stage.rig, member->ends == 1);
  }
  CHECK_INT((1 << WORKERS) - 1, used);
  close_stage(&stage);
}

TEST(without_workers_there_is_no_thread) {
  struct stage stage;

  open_stage(&stage, 0);
  CHECK(stage.rig.crew.workers == NULL);
  CHECK(enter(&stage, 0, true, NULL)->pair->worker == NULL);
  CHECK_INT(1, stage.rig.plane.fds.used);
  close_stage(&stage);
}

/* ---- across the border ------------------------------------------------ */

TEST(bytes_are_counted_for_all_to_see) {
  struct stage stage;
  struct member *member;
  struct peer *a, *b;

  open_stage(&stage, WORKERS);
  member = enter(&stage, 0, false, NULL);
  a = &member->peers[0];
  b = &member->peers[1];
  RIG_UNTIL(&stage.rig, (a->sent < 1 << 20 ? peer_send(a, 4096) : 0,
                         peer_receive(b, a->seed, 1 << 18),
                         relay__pair_bytes_in(member->pair) >= 1 << 20));
  CHECK(relay__pair_bytes_in(member->pair) >= b->received);
  CHECK_INT(0, relay__pair_bytes_out(member->pair));
  close_stage(&stage);
}

static bool has_ended_ones(struct worker *worker) {
  bool has;

  uv_mutex_lock(&worker->lock);
  has = !link_is_empty(&worker->ended);
  uv_mutex_unlock(&worker->lock);
  return has;
}

/* Handed back, but not taken yet: the owner's loop does not turn. */
TEST(orders_for_a_pair_that_was_handed_back_change_nothing) {
  struct pair_limits limits = {.idle_ms = 1};
  struct stage stage;

  open_stage(&stage, 1);
  for (unsigned i = 0; i < 8; i++) {
    struct member *member = enter(&stage, i, false, NULL);
    uint64_t until = uv_hrtime() + 10000000000ull;

    peer_reset(&member->peers[0]);
    while (!has_ended_ones(member->pair->worker) && uv_hrtime() < until)
      uv_sleep(1);
    relay__crew_limit(member->pair, &limits);
    if (i % 2 == 0)
      drop(member);
    RIG_UNTIL(&stage.rig, stage.rig.crew.workers[0].pairs == 0);
    CHECK_INT(i % 2, member->ends);
  }
  close_stage(&stage);
}

TEST(orders_for_a_pair_that_has_ended_find_nothing) {
  struct stage stage;
  struct pair_limits limits = {.idle_ms = 1};
  struct member *member;

  open_stage(&stage, WORKERS);
  for (unsigned i = 0; i < PAIRS; i++) {
    member = enter(&stage, i, false, NULL);
    peer_reset(&member->peers[0]);
    /* Its end is on its way, or is about to be. */
    for (unsigned turns = dice(3000); turns > 0; turns--)
      (void)relay__pair_bytes_in(member->pair);
    relay__crew_limit(member->pair, &limits);
    if (i % 2 == 0)
      drop(member);
  }
  for (unsigned i = 0; i < PAIRS; i++)
    RIG_UNTIL(&stage.rig, stage.members[i].ends == i % 2);
  close_stage(&stage);
}

TEST(one_limit_holds_for_pairs_of_all_workers) {
  struct rate_share *share = relay__rate_share_new();
  struct pair_limits limits = {.share = share};
  uint64_t start, got = 0;
  struct stage stage;
  unsigned i;

  open_stage(&stage, WORKERS);
  relay__rate_set(&share->in, 1000000, uv_now(&stage.rig.loop));
  for (i = 0; i < WORKERS; i++)
    enter(&stage, i, false, &limits);
  CHECK_INT(1 + WORKERS, share->holders);
  start = uv_hrtime();
  while (got < 800000) {
    got = 0;
    rig_turn(&stage.rig);
    for (i = 0; i < WORKERS; i++) {
      struct peer *peers = stage.members[i].peers;

      peer_send(&peers[0], 20000);
      peer_receive(&peers[1], peers[0].seed, 1 << 18);
      got += peers[1].received;
    }
  }
  /* A burst of 125 000 is free, even if each takes it at once, for it is paid
     back. Slower is never wrong on a busy machine, faster is. */
  CHECK(uv_hrtime() - start > 350000000ull);
  for (i = 0; i < WORKERS; i++)
    CHECK(stage.members[i].peers[1].received > 0);
  relay__rate_share_release(share);
  close_stage(&stage);
}

TEST(pipes_are_given_up_where_descriptors_are_wanted) {
  struct stage stage;
  struct plane *plane = &stage.rig.plane;
  struct member *member;
  struct peer *a, *b;
  unsigned news;

  open_stage(&stage, WORKERS);
  member = enter(&stage, 0, false, NULL);
  a = &member->peers[0];
  b = &member->peers[1];
  peer_send(a, 100);
  RIG_UNTIL(&stage.rig,
            (peer_receive(b, a->seed, 100), b->received == a->sent));
  RIG_UNTIL(&stage.rig, relay__pair_bytes_in(member->pair) == a->sent);
  CHECK_INT(1, plane->fds.pipes);
  news = stage.news;
  plane->fds.reserved = plane->fds.limit - plane->fds.used;
  CHECK(!relay__plane_has_descriptors(plane, 2));
  RIG_UNTIL(&stage.rig, stage.news > news);
  RIG_UNTIL(&stage.rig, plane->fds.pipes == 0);
  CHECK(relay__plane_has_descriptors(plane, 2));
  CHECK_INT(0, plane->fds.wanted);
  plane->fds.reserved = 0;
  close_stage(&stage);
}

TEST(too_many_workers_are_refused) {
  struct stage stage;
  struct crew crew;

  open_stage(&stage, 0);
  CHECK_INT(UV_EINVAL,
            relay__crew_init(&crew, &stage.rig.plane, CREW_WORKERS_MAX + 1));
  relay__crew_close(&crew);
  close_stage(&stage);
}

/* ---- any schedule ----------------------------------------------------- */

static void order(struct member *member) {
  struct pair_limits limits = {.idle_ms = dice(4) == 0 ? 1 : 60000,
                               .rate_in = dice(3) * 1000000};

  if (dice(4) == 0)
    drop(member);
  else
    relay__crew_limit(member->pair, &limits);
}

static void act(struct member *member) {
  unsigned which = dice(2), what = dice(100);
  struct peer *peer = &member->peers[which];

  if (what < 6 && member->pair != NULL)
    order(member);
  if (peer->closed || peer->reset)
    return;
  if (what < 45 && !peer->shut)
    peer_send(peer, 1 + dice(20000));
  else if (what < 90)
    peer_receive(peer, member->peers[member->echo ? 0 : 1 - which].seed,
                 1 + dice(60000));
  else if (what < 93 && !peer->shut)
    peer_shut(peer);
  else if (what < 96)
    peer_reset(peer);
}

/* One that has ended makes room for the next. */
static void follow(struct stage *stage, unsigned index, unsigned *ends) {
  struct member *member = &stage->members[index];

  if (member->stage != NULL) {
    CHECK_INT(member->dropped ? 0 : 1, member->ends);
    *ends += member->ends + member->dropped;
    leave(member);
  }
  enter(stage, index, dice(8) == 0, NULL);
}

TEST(any_schedule_ends_each_pair_once) {
  struct stage stage;
  unsigned step, i, started = 0, ends = 0;

  random_state = 20261128;
  open_stage(&stage, WORKERS);
  for (step = 0; step < STEPS && check_ok_; step++) {
    unsigned index = dice(PAIRS);

    if (stage.members[index].pair == NULL)
      follow(&stage, index, &ends), started++;
    act(&stage.members[index]);
    if (dice(4) == 0)
      uv_run(&stage.rig.loop, UV_RUN_NOWAIT);
  }
  CHECK(started > 200);
  CHECK_INT(started - PAIRS, ends);
  for (i = 0; i < WORKERS; i++)
    CHECK(stage.rig.crew.workers[i].pairs <= PAIRS + ends);
  close_stage(&stage);
  for (i = 0; i < PAIRS; i++)
    CHECK_INT(stage.members[i].dropped ? 0 : 1, stage.members[i].ends);
}

/* The owner leaves at once, with orders under way. */
TEST(closing_meets_pairs_that_have_just_begun) {
  struct stage stage;
  unsigned round, i;

  for (round = 0; round < 20; round++) {
    open_stage(&stage, WORKERS);
    for (i = 0; i < WORKERS * 2; i++) {
      struct member *member = enter(&stage, i, i % 2 == 0, NULL);

      peer_send(&member->peers[0], 1000);
    }
    close_stage(&stage);
    for (i = 0; i < WORKERS * 2; i++)
      CHECK_INT(0, stage.members[i].ends);
  }
}

int main(void) {
  RUN(the_one_with_the_fewest_pairs_gets_the_next);
  RUN(few_pairs_are_spread_as_well);
  RUN(without_workers_there_is_no_thread);
  RUN(bytes_are_counted_for_all_to_see);
  RUN(orders_for_a_pair_that_was_handed_back_change_nothing);
  RUN(orders_for_a_pair_that_has_ended_find_nothing);
  RUN(one_limit_holds_for_pairs_of_all_workers);
  RUN(pipes_are_given_up_where_descriptors_are_wanted);
  RUN(too_many_workers_are_refused);
  RUN(any_schedule_ends_each_pair_once);
  RUN(closing_meets_pairs_that_have_just_begun);
  return check_report();
}
