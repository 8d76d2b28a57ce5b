/* SPDX-License-Identifier: MIT */
/*
 * An auth hook and a key: it is asked while the handshake stands still, it
 * gives a key or has one proven, and whatever it does or fails to do, only a
 * proven key lets anybody in.
 */
#include "host.h"
#include "net/secret.h"
#include "relay/private.h"
#include "tls_certs.h"

#include <sys/stat.h>

#define SECRET "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define TOKEN "alice." SECRET
#define OTHER "alice.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"

static struct tls_certs certs;
static bool certified; /* the token is said, not proven */
static uint8_t key[SECRET_SIZE], other[SECRET_SIZE];
static char asked_id[80], gone_owner[80];
static int asked_known;
static unsigned proven;
static uint64_t proven_call, gone_id;
static void (*on_asked)(struct host *h, uint64_t call);

static int auth(void *data, uint64_t call, const relay_agent_info *agent,
                const relay_credentials *credentials, relay_verdict *verdict) {
  struct host *h = data;

  h->auths++;
  h->call = call;
  h->agent_id = agent->id;
  snprintf(asked_id, sizeof(asked_id), "%s",
           credentials->id != NULL ? credentials->id : "nobody");
  asked_known = credentials->known;
  *verdict = h->verdict;
  if (on_asked != NULL)
    on_asked(h, call);
  return 0;
}

static void note_gone(void *data, const relay_agent_info *agent, int reason) {
  struct host *h = data;

  h->gones++;
  h->gone_reason = reason;
  snprintf(gone_owner, sizeof(gone_owner), "%s", agent->owner);
  gone_id = agent->id;
}

static void note_cancel(void *data, uint64_t call) {
  struct host *h = data;

  h->cancels++;
  h->cancelled = call;
}

static void note_proven(void *data, uint64_t call) {
  (void)data;
  proven++;
  proven_call = call;
}

static void open_host(struct host *h, const char *token) {
  static const char *const tokens[] = {TOKEN, OTHER};
  char id[TOKEN_ID_MAX + 1];

  CHECK_INT(0, relay__token_key(tokens[0], id, key));
  CHECK_INT(0, relay__token_key(tokens[1], id, other));
  on_asked = NULL;
  proven = 0;
  host_prepare(h);
  h->policy.auth = auth;
  h->policy.agent_gone = note_gone;
  h->policy.cancel = note_cancel;
  h->policy.proven = note_proven;
  h->options.hook_agent_ms = 60000;
  h->agent_options.token = token;
  h->agent_options.name = "test";
  if (certified) {
    h->options.tls_cert = h->agent_options.tls_ca = certs.cert;
    h->options.tls_key = certs.key;
  }
  h->verdict.answer = RELAY_DEFER;
}

/* What an agent is told whose token is no good. */
static int refusal(void) {
  return certified ? RELAY_EDENIED : RELAY_EKEY;
}

static relay_verdict allow_with(const uint8_t *with) {
  return (relay_verdict){.size = sizeof(relay_verdict),
                         .answer = RELAY_ALLOW,
                         .key = with,
                         .key_size = SECRET_SIZE};
}

/* ---- a key ------------------------------------------------------------ */

TEST(a_hook_gives_the_key_at_once) {
  struct host h;

  open_host(&h, TOKEN);
  h.verdict = allow_with(key);
  h.verdict.name = "Alice";
  host_start(&h);
  UNTIL(&h, h.established == 1);
  CHECK_STR("alice", asked_id);
  CHECK_INT(0, asked_known);
  CHECK_INT(1, h.auths);
  host_visit(&h, h.port);
  host_close_agent(&h);
  UNTIL(&h, h.gones == 1);
  CHECK_STR("Alice", gone_owner);
  CHECK_INT(h.agent_id, gone_id);
  CHECK_INT(0, h.cancels);
  host_finish(&h);
}

TEST(a_hook_gives_the_key_later) {
  struct host h;
  relay_verdict allow = allow_with(key);
  relay_agent_info info = {.size = sizeof(info)};

  open_host(&h, TOKEN);
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  CHECK_INT(0, relay_get_agent(h.relay, h.agent_id, &info));
  CHECK_STR("127.0.0.1", info.addr);
  CHECK_INT(0, relay_settle(h.relay, h.call, &allow));
  CHECK_INT(UV_ENOENT, relay_settle(h.relay, h.call, &allow));
  UNTIL(&h, h.established == 1);
  CHECK_INT(0, relay_get_agent(h.relay, h.agent_id, &info));
  CHECK_INT(h.port, info.port);
  CHECK_INT(1, h.auths);
  host_finish(&h);
  CHECK_INT(1, h.gones);
}

/* Said yes to, and no key to show for it: it is not let in, and that is told.
 */
TEST(a_wrong_key_lets_nobody_in) {
  struct host h;

  open_host(&h, OTHER);
  h.verdict = allow_with(key);
  host_start(&h);
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(refusal(), h.end_error);
  CHECK_INT(0, h.established);
  CHECK_INT(1, h.gones);
  CHECK_INT(RELAY_EKEY, h.gone_reason);
  host_finish(&h);
}

TEST(no_key_lets_nobody_in) {
  static const relay_answer answers[] = {RELAY_ALLOW, RELAY_ALLOW, RELAY_DENY,
                                         RELAY_PICK};
  /* None, and there is no tokens file; one of half the size. */
  static const unsigned sizes[] = {0, 16, SECRET_SIZE, SECRET_SIZE};

  for (int i = 0; i < 4; i++) {
    struct host h;

    open_host(&h, TOKEN);
    h.verdict = allow_with(sizes[i] != 0 ? key : NULL);
    h.verdict.key_size = sizes[i];
    h.verdict.answer = answers[i];
    host_start(&h);
    UNTIL(&h, h.agent_ends == 1);
    CHECK_INT(refusal(), h.end_error);
    CHECK_INT(0, h.established);
    CHECK_INT(i < 2, h.gones);
    host_finish(&h);
  }
}

TEST(a_hook_that_is_late_lets_nobody_in) {
  struct host h;
  relay_verdict allow = allow_with(key);

  open_host(&h, TOKEN);
  h.options.hook_agent_ms = 60;
  host_start(&h);
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(refusal(), h.end_error);
  CHECK_INT(1, h.cancels);
  CHECK_INT(h.call, h.cancelled);
  CHECK_INT(UV_ENOENT, relay_settle(h.relay, h.call, &allow));
  CHECK_INT(UV_ENOENT, relay_verify(h.relay, h.call, key, sizeof(key)));
  CHECK_INT(0, h.gones);
  host_finish(&h);
}

/* The handshake's own time stands still while a hook waits. */
TEST(waiting_costs_no_handshake_time) {
  struct host h;
  relay_verdict allow = allow_with(key);
  uint64_t until;

  open_host(&h, TOKEN);
  h.options.handshake_ms = 1000;
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  for (until = uv_hrtime() + 1500000000; uv_hrtime() < until;)
    host_turn(&h);
  CHECK_INT(0, relay_settle(h.relay, h.call, &allow));
  UNTIL(&h, h.established == 1);
  host_finish(&h);
}

/* ---- a proof first ---------------------------------------------------- */

TEST(a_hook_has_the_key_proven_and_goes_on) {
  struct host h;
  relay_verdict allow = {.size = sizeof(allow)};

  open_host(&h, TOKEN);
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  CHECK_INT(UV_EINVAL, relay_verify(h.relay, h.call, key, 31));
  CHECK_INT(UV_EINVAL, relay_verify(h.relay, h.call, NULL, 32));
  CHECK_INT(UV_ENOENT, relay_verify(h.relay, h.call + 1, key, 32));
  CHECK_INT(0, relay_verify(h.relay, h.call, key, sizeof(key)));
  CHECK_INT(UV_EALREADY, relay_verify(h.relay, h.call, key, sizeof(key)));
  UNTIL(&h, proven == 1);
  CHECK_INT(h.call, proven_call);
  for (int i = 0; i < 20; i++)
    host_turn(&h);
  CHECK_INT(0, h.established);
  CHECK_INT(0, relay_settle(h.relay, h.call, &allow));
  UNTIL(&h, h.established == 1);
  host_visit(&h, h.port);
  host_finish(&h);
}

static void verify_now(struct host *h, uint64_t call) {
  CHECK_INT(0, relay_verify(h->relay, call, key, sizeof(key)));
  CHECK_INT(UV_EALREADY, relay_verify(h->relay, call, key, sizeof(key)));
}

TEST(a_key_may_be_given_within_the_hook) {
  struct host h;
  relay_verdict allow = {.size = sizeof(allow)};

  open_host(&h, TOKEN);
  on_asked = verify_now;
  host_start(&h);
  UNTIL(&h, proven == 1);
  CHECK_INT(0, relay_settle(h.relay, h.call, &allow));
  UNTIL(&h, h.established == 1);
  host_finish(&h);
}

static void verify_and_settle(struct host *h, uint64_t call) {
  relay_verdict allow = {.size = sizeof(allow)};

  CHECK_INT(0, relay_verify(h->relay, call, key, sizeof(key)));
  CHECK_INT(0, relay_settle(h->relay, call, &allow));
}

static int given_elsewhere;

static int verify_in_allocate(void *data, uint64_t call,
                              const relay_agent_info *agent,
                              const relay_want *want, relay_verdict *verdict) {
  struct host *h = data;

  (void)agent, (void)want, (void)verdict;
  given_elsewhere = relay_verify(h->relay, call, key, sizeof(key));
  return 0;
}

TEST(a_key_is_no_answer_to_another_question) {
  struct host h;

  open_host(&h, TOKEN);
  h.verdict = allow_with(key);
  h.policy.allocate = verify_in_allocate;
  given_elsewhere = 0;
  host_start(&h);
  UNTIL(&h, h.established == 1);
  CHECK_INT(UV_ENOENT, given_elsewhere);
  host_finish(&h);
}

/* The key counts also where the answer comes with it. */
TEST(a_key_and_an_answer_at_once) {
  for (int i = 0; i < 4; i++) { /* who comes with it, and how it is answered */
    bool is_right = i % 2 == 0;
    struct host h;

    open_host(&h, is_right ? TOKEN : OTHER);
    on_asked = i < 2 ? verify_now : verify_and_settle;
    if (i < 2)
      h.verdict.answer = RELAY_ALLOW;
    host_start(&h);
    UNTIL(&h, h.established == 1 || h.agent_ends == 1);
    CHECK_INT(is_right, h.established);
    CHECK_INT(0, proven);
    host_finish(&h);
    CHECK_INT(1, h.gones);
    CHECK_INT(0, h.cancels);
  }
}

/* A yes before the proof is a yes if the proof comes. */
TEST(settled_before_it_is_proven) {
  const char *tokens[] = {TOKEN, OTHER};

  for (int i = 0; i < 2; i++) {
    struct host h;
    relay_verdict allow = {.size = sizeof(allow)};

    open_host(&h, tokens[i]);
    host_start(&h);
    UNTIL(&h, h.auths == 1);
    CHECK_INT(0, relay_verify(h.relay, h.call, key, sizeof(key)));
    if (proven == 0 && h.cancels == 0)
      CHECK_INT(0, relay_settle(h.relay, h.call, &allow));
    UNTIL(&h, h.established == 1 || h.agent_ends == 1);
    CHECK_INT(i == 0, h.established);
    host_finish(&h);
  }
}

TEST(a_key_that_is_not_proven_is_cancelled) {
  struct host h;
  relay_verdict allow = {.size = sizeof(allow)};

  open_host(&h, OTHER);
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  CHECK_INT(0, relay_verify(h.relay, h.call, key, sizeof(key)));
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(0, proven);
  CHECK_INT(1, h.cancels);
  CHECK_INT(h.call, h.cancelled);
  CHECK_INT(UV_ENOENT, relay_settle(h.relay, h.call, &allow));
  CHECK_INT(0, h.gones);
  host_finish(&h);
}

/* Proven, and denied all the same: then it is told so, in so many words. */
TEST(proven_and_denied) {
  struct host h;
  relay_verdict deny = {.size = sizeof(deny), .answer = RELAY_DENY};

  open_host(&h, TOKEN);
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  CHECK_INT(0, relay_verify(h.relay, h.call, key, sizeof(key)));
  UNTIL(&h, proven == 1);
  CHECK_INT(0, relay_settle(h.relay, h.call, &deny));
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(RELAY_EDENIED, h.end_error);
  host_finish(&h);
}

TEST(late_after_the_proof) {
  struct host h;

  open_host(&h, TOKEN);
  h.options.hook_agent_ms = 1000; /* in which the key is proven */
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  CHECK_INT(0, relay_verify(h.relay, h.call, key, sizeof(key)));
  UNTIL(&h, h.agent_ends == 1);
  CHECK_INT(1, proven);
  CHECK_INT(1, h.cancels);
  CHECK_INT(RELAY_EDENIED, h.end_error);
  host_finish(&h);
}

/* ---- things happen meanwhile ------------------------------------------ */

TEST(one_that_leaves_is_cancelled) {
  struct host h;

  open_host(&h, TOKEN);
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  host_close_agent(&h);
  UNTIL(&h, h.cancels == 1);
  CHECK_INT(h.call, h.cancelled);
  host_finish(&h);
}

static void close_it(struct host *h, uint64_t call) {
  (void)call;
  host_close_relay(h);
}

static void close_agent_by_id(struct host *h, uint64_t call) {
  (void)call;
  CHECK_INT(0, relay_close_agent(h->relay, h->agent_id, "no"));
  CHECK_INT(UV_ENOENT, relay_close_agent(h->relay, h->agent_id, "no"));
}

TEST(a_hook_ends_what_it_is_asked_about) {
  static const relay_answer answers[] = {RELAY_ALLOW, RELAY_DENY, RELAY_DEFER};

  for (int i = 0; i < 6; i++) {
    struct host h;

    open_host(&h, TOKEN);
    h.verdict = allow_with(key);
    h.verdict.answer = answers[i % 3];
    on_asked = i < 3 ? close_it : close_agent_by_id;
    h.agent_options.once = 1;
    host_start(&h);
    UNTIL(&h, h.agent_ends == 1);
    CHECK_INT(0, h.established);
    CHECK_INT(answers[i % 3] == RELAY_DEFER, h.cancels);
    host_finish(&h);
  }
}

static void close_on_cancel(void *data, uint64_t call) {
  note_cancel(data, call);
  host_close_relay(data);
}

/* It is pushed out for a newcomer, and the hook that is told of that closes the
   relay: the newcomer must not be let into it any more. */
TEST(a_relay_closed_to_make_room) {
  struct host h;
  unsigned port;
  int fd;

  open_host(&h, TOKEN);
  h.policy.cancel = close_on_cancel;
  h.options.max_unproven_per_source = 1;
  h.options.handshake_ms = 60000;
  h.options.hook_agent_ms = 20000; /* less than half of that is left */
  h.agent_options.once = 1;
  host_start(&h);
  port = relay_port(h.relay);
  UNTIL(&h, h.auths == 1);
  fd = visitor_open(port);
  UNTIL(&h, h.cancels == 1);
  UNTIL(&h, h.relay_closed == 1);
  close(fd);
  host_finish(&h);
}

/* While one waits, others come and go. */
TEST(others_go_on_while_one_waits) {
  struct host h;
  relay_agent_options options;
  relay_agent *waiting;
  relay_verdict allow = allow_with(key);
  uint64_t call;

  open_host(&h, TOKEN);
  h.agent_options.name = "waits";
  h.options.hook_agent_ms = 3600000;
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  call = h.call;
  waiting = h.agent;
  for (int i = 0; i < 100; i++) {
    char name[16];

    snprintf(name, sizeof(name), "n%d", i);
    h.verdict = allow_with(key);
    options = h.agent_options;
    options.name = name;
    h.established = 0;
    CHECK_INT(0, relay_agent_new(&h.agent, &h.loop, &options));
    UNTIL(&h, h.established == 1);
    relay_agent_close(h.agent, NULL, NULL);
  }
  h.agent = waiting;
  h.established = 0;
  UNTIL(&h, h.gones == 100);
  CHECK_INT(0, relay_settle(h.relay, call, &allow));
  UNTIL(&h, h.established == 1);
  h.policy.agent_gone = NULL;
  host_finish(&h);
}

/* ---- beside a tokens file --------------------------------------------- */

TEST(the_file_knows_what_the_hook_does_not) {
  static char path[] = "/tmp/relay-test-auth";
  relay_token token = {.size = sizeof(token), .id = "alice"};
  char text[RELAY_TOKEN_SIZE], error[256];
  relay_answer answers[] = {RELAY_ALLOW, RELAY_ABSTAIN};

  unlink(path);
  CHECK_INT(0, relay_token_new(path, &token, text, sizeof(text), error,
                               sizeof(error)));
  for (int i = 0; i < 2; i++) {
    struct host h;

    open_host(&h, text);
    h.options.tokens = path;
    h.verdict.answer = answers[i];
    host_start(&h);
    UNTIL(&h, h.established == 1);
    CHECK_INT(1, asked_known);
    host_finish(&h);
    open_host(&h, TOKEN); /* of the same name, and not in the file */
    h.options.tokens = path;
    h.verdict.answer = answers[i];
    host_start(&h);
    UNTIL(&h, h.agent_ends == 1);
    CHECK_INT(refusal(), h.end_error);
    host_finish(&h);
  }
  unlink(path);
}

/* Whoever leaves it to the file after all does so with the key it gave, too. */
TEST(abstaining_after_a_key_asks_the_file) {
  static char path[] = "/tmp/relay-test-auth-abstain";
  relay_token token = {.size = sizeof(token), .id = "alice"};
  relay_verdict abstain = {.size = sizeof(abstain), .answer = RELAY_ABSTAIN};
  char text[RELAY_TOKEN_SIZE], error[256], id[TOKEN_ID_MAX + 1];
  uint8_t of_file[SECRET_SIZE];

  unlink(path);
  CHECK_INT(0, relay_token_new(path, &token, text, sizeof(text), error,
                               sizeof(error)));
  CHECK_INT(0, relay__token_key(text, id, of_file));
  for (int i = 0; i < 4; i++) { /* the file's key or another; when */
    bool is_of_file = i % 2 == 0;
    struct host h;

    open_host(&h, is_of_file ? text : TOKEN);
    h.options.tokens = path;
    host_start(&h);
    UNTIL(&h, h.auths == 1);
    CHECK_INT(0, relay_verify(h.relay, h.call, is_of_file ? of_file : key, 32));
    if (i >= 2)
      UNTIL(&h, proven == 1);
    CHECK_INT(0, relay_settle(h.relay, h.call, &abstain));
    UNTIL(&h, h.established == 1 || h.agent_ends == 1);
    CHECK_INT(is_of_file, h.established);
    CHECK(is_of_file || h.end_error == RELAY_EDENIED);
    host_finish(&h);
  }
  unlink(path);
}

TEST(what_is_no_token_makes_no_agent) {
  struct host h;

  open_host(&h, "alice");
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  h.agent_options.port = relay_port(h.relay);
  CHECK_INT(UV_EINVAL, relay_agent_new(&h.agent, &h.loop, &h.agent_options));
  h.agent_options.token = TOKEN;
  CHECK_INT(0, relay_agent_new(&h.agent, &h.loop, &h.agent_options));
  host_finish(&h);
}

static void run_all(void) {
  RUN(a_hook_gives_the_key_at_once);
  RUN(a_hook_gives_the_key_later);
  RUN(a_wrong_key_lets_nobody_in);
  RUN(no_key_lets_nobody_in);
  RUN(a_hook_that_is_late_lets_nobody_in);
  RUN(waiting_costs_no_handshake_time);
  RUN(a_hook_has_the_key_proven_and_goes_on);
  RUN(a_key_may_be_given_within_the_hook);
  RUN(a_key_is_no_answer_to_another_question);
  RUN(a_key_and_an_answer_at_once);
  RUN(settled_before_it_is_proven);
  RUN(a_key_that_is_not_proven_is_cancelled);
  RUN(proven_and_denied);
  RUN(late_after_the_proof);
  RUN(a_hook_ends_what_it_is_asked_about);
  RUN(a_relay_closed_to_make_room);
  RUN(others_go_on_while_one_waits);
  RUN(the_file_knows_what_the_hook_does_not);
  RUN(abstaining_after_a_key_asks_the_file);
  RUN(what_is_no_token_makes_no_agent);
}

/* The same by both ways: the key is proven by TLS, or the token is said inside
   of TLS that the relay's certificate vouches for. */
int main(void) {
  run_all();
  /* One that has said its line leaves in order, and is heard after the hook. */
  RUN(one_that_leaves_is_cancelled);
  certified = tls_certs_open(&certs);
  if (certified)
    run_all();
  tls_certs_close(&certs);
  return check_report();
}
