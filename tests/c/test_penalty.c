/* SPDX-License-Identifier: MIT */
/* Sources and their scores, on a clock of the test's own. */
#include "check.h"
#include "relay/penalty.h"
#include "wire/address.h"

#include <stdlib.h>

#define LONGEST 3200
#define HALF_LIFE 1000

static struct penalties penalties;
static uint64_t now = 5000;

static struct source *hold(const char *host) {
  struct sockaddr_storage address;

  CHECK_INT(0, relay__address_parse_host(host, 1234, &address));
  relay__address_unmap(&address);
  return relay__source_hold(&penalties, (struct sockaddr *)&address);
}

static void release(struct source *source) {
  relay__source_release(&penalties, source);
}

/* A fault from there; the time to its answer. */
static uint64_t fault(const char *host) {
  struct source *source = hold(host);
  uint64_t delay = relay__source_fault(&penalties, source, now);

  release(source);
  return delay;
}

static unsigned score(const char *host) {
  struct source *source = hold(host);
  unsigned faults = relay__source_score(&penalties, source, now);

  release(source);
  return faults;
}

static void begin(bool on, uint64_t half_life) {
  relay__penalties_init(&penalties, on, LONGEST, half_life);
}

static void finish(void) {
  relay__penalties_free(&penalties);
  CHECK(penalties.sources == NULL);
  CHECK_INT(0, penalties.idle);
}

TEST(each_fault_doubles_the_delay) {
  static const uint64_t delays[] = {
      0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 3200, 3200, 3200, 3200, 3200};

  begin(true, HALF_LIFE);
  CHECK_INT(PENALTY_LIMIT - 1, sizeof delays / sizeof *delays);
  for (unsigned i = 0; i < PENALTY_LIMIT - 1; i++)
    CHECK_INT(delays[i], fault("192.0.2.1"));
  for (unsigned i = 0; i < 1000; i++)
    CHECK(fault("192.0.2.1") == PENALTY_REFUSE);
  /* Nobody else has to do with it. */
  CHECK_INT(0, fault("192.0.2.2"));
  CHECK_INT(1, score("192.0.2.2"));
  finish();
}

TEST(half_is_forgotten) {
  begin(true, HALF_LIFE);
  for (unsigned i = 0; i < 12; i++)
    fault("192.0.2.1");
  CHECK_INT(12, score("192.0.2.1"));
  now += HALF_LIFE / 2;
  CHECK_INT(9, score("192.0.2.1"));
  now += HALF_LIFE / 2;
  CHECK_INT(6, score("192.0.2.1"));
  now += HALF_LIFE;
  CHECK_INT(3, score("192.0.2.1"));
  CHECK_INT(0, fault("192.0.2.1"));
  CHECK_INT(100, fault("192.0.2.1"));
  now += 100 * HALF_LIFE;
  CHECK_INT(0, score("192.0.2.1"));
  CHECK_INT(0, fault("192.0.2.1"));
  finish();
}

/* However long a flood was, it is answered again after a bounded time. */
TEST(a_flood_is_forgotten_too) {
  begin(true, HALF_LIFE);
  for (unsigned i = 0; i < 100000; i++)
    fault("192.0.2.1");
  CHECK_INT(4 * PENALTY_LIMIT, score("192.0.2.1"));
  now += 2 * HALF_LIFE + HALF_LIFE / 2;
  CHECK_INT(LONGEST, fault("192.0.2.1"));
  finish();
}

TEST(without_a_half_life_nothing_is_forgotten) {
  begin(true, 0);
  for (unsigned i = 0; i < 10; i++)
    fault("192.0.2.1");
  now += UINT64_C(1) << 40;
  CHECK_INT(10, score("192.0.2.1"));
  finish();
}

TEST(a_proven_key_clears_it) {
  struct source *source;

  begin(true, HALF_LIFE);
  for (unsigned i = 0; i < 2 * PENALTY_LIMIT; i++)
    fault("192.0.2.1");
  source = hold("192.0.2.1");
  source->told = true;
  relay__source_clear(source);
  CHECK(!source->told);
  release(source);
  CHECK(penalties.sources == NULL);
  CHECK_INT(0, fault("192.0.2.1"));
  finish();
}

TEST(once_it_is_below_the_limit_it_is_told_anew) {
  struct source *source;

  begin(true, HALF_LIFE);
  source = hold("192.0.2.1");
  for (unsigned i = 0; i < 2 * PENALTY_LIMIT; i++)
    relay__source_fault(&penalties, source, now);
  source->told = true;
  relay__source_fault(&penalties, source, now);
  CHECK(source->told);
  now += 2 * HALF_LIFE;
  relay__source_fault(&penalties, source, now);
  CHECK(!source->told);
  release(source);
  finish();
}

TEST(a_source_is_what_one_party_has) {
  begin(true, HALF_LIFE);
  fault("2001:db8:1:2::1");
  fault("2001:db8:1:2:ffff:ffff:ffff:ffff");
  CHECK_INT(2, score("2001:db8:1:2:3:4:5:6"));
  CHECK_INT(0, score("2001:db8:1:3::1"));
  fault("192.0.2.1");
  CHECK_INT(1, score("::ffff:192.0.2.1"));
  CHECK_INT(0, score("::ffff:192.0.2.2"));
  /* An address of four bytes is not the beginning of one of sixteen. */
  CHECK_INT(0, score("c000:201::"));
  finish();
}

TEST(off_means_off) {
  begin(false, HALF_LIFE);
  for (unsigned i = 0; i < 100; i++)
    CHECK_INT(0, fault("192.0.2.1"));
  CHECK_INT(0, score("192.0.2.1"));
  finish();
}

TEST(who_did_nothing_is_not_kept) {
  begin(true, HALF_LIFE);
  release(hold("192.0.2.1"));
  CHECK(penalties.sources == NULL);
  finish();
}

/* Of those without a connection only so many are kept, the latest. */
TEST(memory_is_bounded) {
  struct source *held;
  char host[32];

  begin(true, HALF_LIFE);
  held = hold("192.0.2.1");
  CHECK(hold("192.0.2.1") == held);
  CHECK_INT(2, held->held);
  relay__source_fault(&penalties, held, now);
  for (unsigned i = 0; i < 3 * PENALTY_SOURCES_MAX; i++) {
    snprintf(host, sizeof host, "10.0.%u.%u", i >> 8, i & 255);
    fault(host);
    CHECK(penalties.idle <= PENALTY_SOURCES_MAX);
  }
  CHECK_INT(PENALTY_SOURCES_MAX, penalties.idle);
  CHECK_INT(PENALTY_SOURCES_MAX + 1, HASH_COUNT(penalties.sources));
  CHECK_INT(1, score("10.0.47.255"));
  CHECK_INT(0, score("10.0.0.0"));
  release(held);
  release(held);
  CHECK_INT(1, score("192.0.2.1"));
  finish();
}

int main(void) {
  RUN(each_fault_doubles_the_delay);
  RUN(half_is_forgotten);
  RUN(a_flood_is_forgotten_too);
  RUN(without_a_half_life_nothing_is_forgotten);
  RUN(a_proven_key_clears_it);
  RUN(once_it_is_below_the_limit_it_is_told_anew);
  RUN(a_source_is_what_one_party_has);
  RUN(off_means_off);
  RUN(who_did_nothing_is_not_kept);
  RUN(memory_is_bounded);
  return check_report();
}
