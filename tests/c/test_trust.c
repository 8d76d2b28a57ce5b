/* SPDX-License-Identifier: MIT */
/*
 * Tokens in use. Agents are typed by hand on connections whose token counts as
 * proven, as a handshake would say: that is the one seam. All else is real.
 */
#include "host.h"
#include "relay/private.h"

#include <sys/stat.h>
#include <time.h>

#define KEY "key=00000000000000000000000000000000000000000000000000000000000000"

static char path[64];

static void write_tokens(const char *text) {
  FILE *file = fopen(path, "w");

  CHECK(file != NULL && fputs(text, file) >= 0);
  fclose(file);
}

static void open_relay(struct host *h, const char *tokens) {
  write_tokens(tokens);
  host_prepare(h);
  h->options.tokens = path;
  h->options.grace_ms = 60000;
  CHECK_INT(0, relay_new(&h->relay, &h->loop, &h->options));
}

static void finish(struct host *h) {
  host_close_relay(h);
  CHECK_INT(0, uv_run(&h->loop, UV_RUN_DEFAULT));
  CHECK_INT(1, h->relay_closed);
  CHECK_INT(0, uv_loop_close(&h->loop));
}

/* ---- agents ----------------------------------------------------------- */

/* Two ends of one connection. */
static void connect_ends(int ends[2]) {
  struct sockaddr_in to = {.sin_family = AF_INET,
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(to);
  int listener = socket(AF_INET, SOCK_STREAM, 0);

  CHECK_INT(0, bind(listener, (struct sockaddr *)&to, sizeof(to)));
  CHECK_INT(0, listen(listener, 1));
  CHECK_INT(0, getsockname(listener, (struct sockaddr *)&to, &length));
  ends[0] = visitor_open(ntohs(to.sin_port));
  ends[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
  close(listener);
}

/* Says LISTEN as somebody who has proven a token, under a new name; the agent's
   end. */
static int ask_as(struct host *h, const char *id, const char *words) {
  static unsigned number;
  char line[256];
  struct wire_message message;
  struct proof proof = {0};
  struct stream *stream;
  int ends[2], length;

  length = snprintf(line, sizeof line, "RELAY/1 LISTEN%s name=%u\n", words,
                    ++number);
  CHECK_INT(length, relay__wire_parse(&message, line, (size_t)length));
  connect_ends(ends);
  CHECK_INT(0, relay__stream_open(&stream, &h->relay->plane, ends[1]));
  proof.claim = CLAIM_TOKEN;
  proof.admitted = h->policy.auth != NULL; /* as it was asked before */
  snprintf(proof.token_id, sizeof proof.token_id, "%s", id != NULL ? id : "");
  relay__session_start(h->relay, stream, &message, "192.0.2.7:5",
                       id != NULL ? &proof : NULL);
  return ends[0];
}

/* The next line an agent hears, PING aside. */
static const char *hear(struct host *h, int fd) {
  static char line[1100];
  size_t length = 0;

  do {
    UNTIL(h, visitor_sees(fd) != '-');
    if (recv(fd, line + length, 1, 0) != 1)
      break;
    length++;
    if (line[length - 1] == '\n' && strncmp(line, "PING", 4) == 0)
      length = 0;
  } while (length == 0 || (line[length - 1] != '\n' && length < 1099));
  line[length] = '\0';
  return line;
}

static const char *refused(struct host *h, const char *id, const char *words) {
  int fd = ask_as(h, id, words);
  const char *line = hear(h, fd);

  close(fd);
  return line;
}

static unsigned port_of(const char *line) {
  const char *at = strstr(line, " port=");

  return at != NULL ? (unsigned)strtoul(at + 6, NULL, 10) : 0;
}

/* One that gets an address. */
static int listen_as(struct host *h, const char *id, const char *words,
                     unsigned *port) {
  int fd = ask_as(h, id, words);
  const char *line = hear(h, fd);

  CHECK(strncmp(line, "OK ", 3) == 0);
  if (port != NULL)
    *port = port_of(line);
  return fd;
}

static bool can_connect(unsigned port) {
  struct sockaddr_in to = {.sin_family = AF_INET,
                           .sin_port = htons((uint16_t)port),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  bool can = connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0;

  close(fd);
  return can;
}

/* A port nobody listens on, and none that the kernel hands out by itself: one
   of those could be somebody's before it is asked for. */
static unsigned free_port(void) {
  struct sockaddr_in to = {.sin_family = AF_INET,
                           .sin_addr.s_addr = htonl(INADDR_ANY)};
  static unsigned seed;
  unsigned port = 0;
  int fd, tries;

  if (seed == 0)
    seed = (unsigned)getpid();
  for (tries = 0; port == 0 && tries < 100; tries++) {
    seed = seed * 1103515245u + 12345u;
    to.sin_port = htons((uint16_t)(12000 + (seed >> 8) % 19000));
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
      port = ntohs(to.sin_port);
    close(fd);
  }
  CHECK(port != 0);
  return port;
}

/* ---- who -------------------------------------------------------------- */

#define DENIED "ERR code=denied final=yes reason=denied%20by%20policy\n"

TEST(only_who_has_a_good_token_gets_an_address) {
  struct host h;

  open_relay(&h, "good " KEY "00\n"
                 "gone " KEY "00 revoked=yes\n"
                 "past " KEY "00 expires=2020-01-01T00:00:00Z\n");
  close(listen_as(&h, "good", "", NULL));
  /* To those outside, one is as good as the other. */
  CHECK_STR(DENIED, refused(&h, NULL, ""));
  CHECK_STR(DENIED, refused(&h, "gone", ""));
  CHECK_STR(DENIED, refused(&h, "past", ""));
  CHECK_STR(DENIED, refused(&h, "nobody", ""));
  finish(&h);
}

static int let_in(void *data, uint64_t call, const relay_agent_info *agent,
                  const relay_credentials *credentials,
                  relay_verdict *verdict) {
  (void)data, (void)call, (void)agent, (void)credentials, (void)verdict;
  return 0;
}

TEST(a_policy_that_decides_is_asked_instead) {
  struct host h;

  write_tokens("good " KEY "00\n");
  host_prepare(&h);
  h.options.tokens = path;
  h.policy.auth = let_in;
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  close(listen_as(&h, "of the policy", "", NULL));
  close(listen_as(&h, NULL, "", NULL));
  finish(&h);
}

TEST(without_a_file_it_is_open) {
  struct host h;
  char error[128];

  host_prepare(&h);
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  close(listen_as(&h, NULL, "", NULL));
  CHECK_INT(UV_EINVAL, relay_reload_tokens(h.relay, error, sizeof error));
  CHECK_STR("there is no tokens file", error);
  finish(&h);
}

TEST(a_bad_file_makes_no_relay) {
  struct host h;

  write_tokens("good key=1\n");
  host_prepare(&h);
  h.options.tokens = path;
  CHECK_INT(UV_EFTYPE, relay_new(&h.relay, &h.loop, &h.options));
  h.options.tokens = "/nonexistent/tokens";
  CHECK_INT(UV_ENOENT, relay_new(&h.relay, &h.loop, &h.options));
  CHECK_INT(0, uv_run(&h.loop, UV_RUN_DEFAULT));
  CHECK_INT(0, uv_loop_close(&h.loop));
}

/* A ticket is worth nothing to another token. */
TEST(a_ticket_is_its_tokens_own) {
  struct host h;
  char words[128];
  const char *line, *ticket;
  unsigned port;
  int fd;

  open_relay(&h, "a " KEY "00\nb " KEY "11\n");
  fd = ask_as(&h, "a", "");
  line = hear(&h, fd);
  port = port_of(line);
  ticket = strstr(line, " resume=");
  CHECK(ticket != NULL);
  snprintf(words, sizeof words, "%.40s", ticket);
  close(fd);
  UNTIL(&h, h.relay->stats.agents == 0);
  close(listen_as(&h, "b", words, &port));
  CHECK_INT(2, h.relay->stats.leases);
  close(listen_as(&h, "a", words, &port));
  CHECK_INT(2, h.relay->stats.leases);
  finish(&h);
}

/* ---- what ------------------------------------------------------------- */

TEST(a_token_may_have_its_ports_only) {
  unsigned first = free_port(), second = free_port(), other = free_port();
  char text[256], words[32];
  unsigned ports[2];
  struct host h;
  int fds[2];

  snprintf(text, sizeof text, "a " KEY "00 ports=%u,%u\nb " KEY "00\n", first,
           second);
  open_relay(&h, text);
  snprintf(words, sizeof words, " port=%u", other);
  CHECK_STR("ERR code=port-refused final=yes reason=port%20not%20allowed\n",
            refused(&h, "a", words));
  close(listen_as(&h, "b", words, &ports[0]));
  CHECK_INT(other, ports[0]);
  CHECK(strncmp("ERR code=port-refused ", refused(&h, "b", " port=22"), 22) ==
        0);
  /* One that is asked for, and those that are chosen. */
  snprintf(words, sizeof words, " port=%u", second);
  fds[0] = listen_as(&h, "a", words, &ports[0]);
  CHECK_INT(second, ports[0]);
  fds[1] = listen_as(&h, "a", "", &ports[1]);
  CHECK_INT(first, ports[1]);
  CHECK(strncmp("ERR code=no-port final=no ", refused(&h, "a", ""), 26) == 0);
  close(fds[0]);
  close(fds[1]);
  finish(&h);
}

/* They stand in place of the relay's range, not beside it. */
TEST(ports_of_a_token_go_before_those_of_the_relay) {
  unsigned mine = free_port(), theirs = free_port();
  char text[256], words[32];
  struct host h;
  unsigned port;

  snprintf(text, sizeof text, "a " KEY "00 ports=%u\n", mine);
  write_tokens(text);
  host_prepare(&h);
  h.options.tokens = path;
  h.options.port_lo = h.options.port_hi = theirs;
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  snprintf(words, sizeof words, " port=%u", theirs);
  CHECK(strncmp("ERR code=port-refused ", refused(&h, "a", words), 22) == 0);
  close(listen_as(&h, "a", "", &port));
  CHECK_INT(mine, port);
  finish(&h);
}

TEST(a_token_has_so_many_leases) {
  struct host h;
  int fd;

  open_relay(&h, "a " KEY "00 leases=2\nb " KEY "00\n");
  fd = listen_as(&h, "a", "", NULL);
  close(listen_as(&h, "a", "", NULL)); /* in grace it is held all the same */
  CHECK(strncmp("ERR code=quota final=no ", refused(&h, "a", ""), 24) == 0);
  close(listen_as(&h, "b", "", NULL));
  visitor_say(fd, "BYE\n");
  UNTIL(&h, h.relay->stats.leases == 2);
  close(listen_as(&h, "a", "", NULL));
  close(fd);
  finish(&h);
}

/* Without a number of its own it has as many as any owner. */
TEST(the_relays_cap_counts_by_token) {
  struct host h;

  write_tokens("a " KEY "00\nb " KEY "00\n");
  host_prepare(&h);
  h.options.tokens = path;
  h.options.max_leases_per_owner = 1;
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  close(listen_as(&h, "a", "", NULL));
  CHECK(strncmp("ERR code=quota ", refused(&h, "a", ""), 15) == 0);
  close(listen_as(&h, "b", "", NULL)); /* from the same address */
  finish(&h);
}

TEST(a_lease_takes_so_many_visitors) {
  struct host h;
  unsigned port, other;
  int a, b, visitors[3];

  open_relay(&h, "a " KEY "00 visitors=2\nb " KEY "00\n");
  a = listen_as(&h, "a", "", &port);
  b = listen_as(&h, "b", "", &other);
  for (int i = 0; i < 2; i++) {
    visitors[i] = visitor_open(port);
    CHECK(strncmp("VISITOR ", hear(&h, a), 8) == 0);
  }
  host_visit_refused(&h, port);
  visitors[2] = visitor_open(other);
  CHECK(strncmp("VISITOR ", hear(&h, b), 8) == 0);
  visitor_close(visitors[0], true);
  CHECK(strncmp("GONE ", hear(&h, a), 5) == 0);
  visitors[0] = visitor_open(port);
  CHECK(strncmp("VISITOR ", hear(&h, a), 8) == 0);
  for (int i = 0; i < 3; i++)
    close(visitors[i]);
  close(a);
  close(b);
  finish(&h);
}

static int share_port(void *data, uint64_t call, const relay_agent_info *agent,
                      const relay_want *want, relay_verdict *verdict) {
  const struct host *h = data;

  (void)call, (void)agent, (void)want;
  verdict->answer = RELAY_PICK;
  verdict->port = (unsigned)h->step;
  verdict->share = 1;
  return 0;
}

/* Where several agents share an address, who has as many as it may gets no
   more, however few the others have. */
TEST(a_full_lease_is_passed_over) {
  int a, b, visitors[4];
  struct host h;
  unsigned port;

  write_tokens("a " KEY "00 visitors=1\nb " KEY "00\n");
  host_prepare(&h);
  h.options.tokens = path;
  h.options.dead_ms = 3600000; /* nobody is passed over for his silence */
  h.step = (int)free_port();
  h.policy.allocate = share_port;
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  a = listen_as(&h, "a", "", &port);
  b = listen_as(&h, "b", "", &port);
  for (int i = 0; i < 4; i++) {
    visitors[i] = visitor_open(port);
    CHECK(strncmp("VISITOR ", hear(&h, i == 0 ? a : b), 8) == 0);
  }
  for (int i = 0; i < 4; i++)
    close(visitors[i]);
  close(a);
  close(b);
  finish(&h);
}

/* ---- no longer -------------------------------------------------------- */

static void reload(struct host *h, const char *text) {
  char error[256];

  write_tokens(text);
  CHECK_INT(0, relay_reload_tokens(h->relay, error, sizeof error));
}

#define BYE(reason) "BYE retry=never reason=" reason "\n"

TEST(who_lost_its_token_is_ended) {
  struct host h;
  unsigned ports[5];
  int agents[5], visitor;
  static const char *const ids[] = {"stays", "revoked", "removed", "changed",
                                    "past"};
  static const char *const ends[] = {
      NULL, BYE("token%20is%20revoked"), BYE("token%20is%20unknown"),
      BYE("token%20has%20another%20key%20now"), BYE("token%20has%20expired")};

  open_relay(&h, "stays " KEY "00\nrevoked " KEY "00\nremoved " KEY "00\n"
                 "changed " KEY "00\npast " KEY "00\n");
  for (int i = 0; i < 5; i++)
    agents[i] = listen_as(&h, ids[i], "", &ports[i]);
  visitor = visitor_open(ports[1]);
  CHECK(strncmp("VISITOR ", hear(&h, agents[1]), 8) == 0);
  reload(&h, "stays " KEY "00 plain=yes\nrevoked " KEY "00 revoked=yes\n"
             "changed " KEY "01\npast " KEY "00 expires=2020-01-01T00:00:00Z");
  CHECK_INT('r', visitor_ends(&h, visitor));
  for (int i = 1; i < 5; i++) {
    const char *line = hear(&h, agents[i]);

    /* Its visitor is gone before it is told to go. */
    CHECK_STR(ends[i],
              strncmp(line, "GONE ", 5) == 0 ? hear(&h, agents[i]) : line);
    CHECK(!can_connect(ports[i]));
    close(agents[i]);
  }
  CHECK_INT(1, h.relay->stats.agents);
  CHECK_INT(1, h.relay->stats.leases);
  CHECK(can_connect(ports[0]));
  close(visitor);
  close(agents[0]);
  finish(&h);
}

/* Also where the agent is away and only its address is left. */
TEST(a_lease_in_grace_is_ended_with_its_token) {
  struct host h;
  unsigned port, other;

  open_relay(&h, "a " KEY "00\nb " KEY "00\n");
  close(listen_as(&h, "a", "", &port));
  close(listen_as(&h, "b", "", &other));
  UNTIL(&h, h.relay->stats.agents == 0);
  CHECK(can_connect(port));
  reload(&h, "a " KEY "00 revoked=yes\nb " KEY "00\n");
  CHECK_INT(1, h.relay->stats.leases);
  CHECK(!can_connect(port));
  CHECK(can_connect(other));
  finish(&h);
}

TEST(a_bad_file_changes_nothing) {
  struct host h;
  char error[256], wanted[256];
  unsigned port;
  int fd;

  open_relay(&h, "a " KEY "00\n");
  fd = listen_as(&h, "a", "", &port);
  write_tokens("# a is out\nb key=1\n");
  CHECK_INT(UV_EFTYPE, relay_reload_tokens(h.relay, error, sizeof error));
  snprintf(wanted, sizeof wanted, "%s:2: key: not 64 hexadecimal digits", path);
  CHECK_STR(wanted, error);
  unlink(path);
  CHECK_INT(UV_ENOENT, relay_reload_tokens(h.relay, NULL, 0));
  CHECK(can_connect(port));
  close(listen_as(&h, "a", "", NULL));
  close(fd);
  write_tokens("");
  CHECK_INT(0, chmod(path, 0600));
  finish(&h);
}

/* What a new file allows or not counts for what comes then. */
TEST(new_settings_count_from_now_on) {
  struct host h;
  int fd;

  open_relay(&h, "a " KEY "00\n");
  fd = listen_as(&h, "a", "", NULL);
  reload(&h, "a " KEY "00 leases=1 ports=1\nb " KEY "00");
  CHECK(strncmp("ERR code=quota ", refused(&h, "a", ""), 15) == 0);
  close(listen_as(&h, "b", "", NULL));
  CHECK_INT(2, h.relay->stats.agents);
  close(fd);
  finish(&h);
}

TEST(a_token_expires_in_time) {
  time_t now = time(NULL), over = now + 2;
  char text[256], when[32];
  struct host h;
  unsigned port, other;
  int a, b;

  strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime(&over));
  snprintf(text, sizeof text, "a " KEY "00 expires=%s\nb " KEY "00\n", when);
  open_relay(&h, text);
  a = listen_as(&h, "a", "", &port);
  b = listen_as(&h, "b", "", &other);
  CHECK_STR(BYE("token%20has%20expired"), hear(&h, a));
  CHECK(time(NULL) >= over);
  CHECK(!can_connect(port));
  CHECK(can_connect(other));
  CHECK_STR(DENIED, refused(&h, "a", ""));
  close(a);
  close(b);
  finish(&h);
}

/* A hook that is told may end others, or the relay. */
static void end_all(void *data, const relay_agent_info *agent, int reason) {
  struct host *h = data;

  (void)agent, (void)reason;
  if (h->gones++ == 1)
    host_close_relay(h);
}

TEST(a_hook_may_close_the_relay_meanwhile) {
  struct host h;
  int agents[4];

  write_tokens("a " KEY "00\n");
  host_prepare(&h);
  h.options.tokens = path;
  h.policy.agent_gone = end_all;
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  for (int i = 0; i < 4; i++)
    agents[i] = listen_as(&h, "a", "", NULL);
  reload(&h, "");
  CHECK_INT(4, h.gones);
  for (int i = 0; i < 4; i++)
    close(agents[i]);
  finish(&h);
}

/* ---- before it says what it wants -------------------------------------- */

/* Who has proven a key takes up no place of those who have not, and the faults
   of its source are forgotten. */
TEST(who_has_proven_a_key_is_no_stranger) {
  struct handshake *handshake;
  struct host h;
  int proven, other;

  host_prepare(&h);
  h.options.penalties = RELAY_PENALTIES_ON;
  h.options.max_unproven = 1;
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  for (int i = 0; i < 4; i++) {
    int fd = visitor_open(relay_port(h.relay));

    visitor_say(fd, "hello\n");
    CHECK(strncmp("ERR code=protocol ", hear(&h, fd), 18) == 0);
    close(fd);
  }
  proven = visitor_open(relay_port(h.relay));
  UNTIL(&h, h.relay->stats.unproven == 1);
  handshake = container_of(h.relay->handshakes.next, struct handshake, link);
  CHECK_INT(4, relay__source_score(&h.relay->penalties, handshake->source,
                                   relay__now_ms(h.relay)));
  relay__handshake_prove(handshake);
  relay__handshake_prove(handshake);
  CHECK_INT(0, h.relay->stats.unproven);
  CHECK(h.relay->penalties.sources == NULL);
  other = visitor_open(relay_port(h.relay));
  UNTIL(&h, h.relay->stats.unproven == 1);
  visitor_say(proven, "RELAY/1 LISTEN\n");
  CHECK(strncmp("OK ", hear(&h, proven), 3) == 0);
  CHECK_INT(1, h.relay->stats.unproven);
  visitor_say(other, "hello\n");
  CHECK(strncmp("ERR code=protocol ", hear(&h, other), 18) == 0);
  close(proven);
  close(other);
  finish(&h);
}

int main(void) {
  int fd;

  snprintf(path, sizeof path, "/tmp/test_trust.XXXXXX");
  fd = mkstemp(path);
  CHECK(fd >= 0);
  close(fd);
  RUN(only_who_has_a_good_token_gets_an_address);
  RUN(a_policy_that_decides_is_asked_instead);
  RUN(without_a_file_it_is_open);
  RUN(a_bad_file_makes_no_relay);
  RUN(a_ticket_is_its_tokens_own);
  RUN(a_token_may_have_its_ports_only);
  RUN(ports_of_a_token_go_before_those_of_the_relay);
  RUN(a_token_has_so_many_leases);
  RUN(the_relays_cap_counts_by_token);
  RUN(a_lease_takes_so_many_visitors);
  RUN(a_full_lease_is_passed_over);
  RUN(who_lost_its_token_is_ended);
  RUN(a_lease_in_grace_is_ended_with_its_token);
  RUN(a_bad_file_changes_nothing);
  RUN(new_settings_count_from_now_on);
  RUN(a_token_expires_in_time);
  RUN(a_hook_may_close_the_relay_meanwhile);
  RUN(who_has_proven_a_key_is_no_stranger);
  unlink(path);
  return check_report();
}
