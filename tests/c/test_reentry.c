/* SPDX-License-Identifier: MIT */
/*
 * Hooks that do the worst at the worst time: from within each hook the policy
 * closes, once, what the hook is about, or everything, and then gives any
 * answer. All of it: every hook, every deed, every answer, then whatever is
 * left is closed. What must hold: no use of what is gone (the sanitizers and
 * valgrind see that), each let-in visitor closed once, each question that was
 * deferred settled or cancelled once, and a loop that ends by itself.
 */
#include "host.h"

enum place {
  IN_AUTH,
  IN_ALLOCATE,
  IN_VISITOR,
  IN_PEEK,
  IN_OPEN,
  IN_CLOSE,
  IN_GONE,
  IN_TICK,
  IN_CANCEL_AUTH, /* of a question that waited too long */
  IN_CANCEL_CONN, /* of a visitor that left */
  IN_REPLACED,    /* agent_gone of a session whose agent is back */
  PLACES
};

static const char *const place_names[PLACES] = {"auth",
                                                "allocate",
                                                "visitor",
                                                "peek",
                                                "open",
                                                "close",
                                                "agent_gone",
                                                "tick",
                                                "cancel (auth)",
                                                "cancel (visitor)",
                                                "agent_gone (replaced)"};

enum deed {
  CLOSE_RELAY,
  DRAIN_RELAY,
  CLOSE_SUBJECT, /* the conn or agent the hook is called for */
  CLOSE_AGENTS,
  CLOSE_CONNS,
  SETTLE, /* the question, before it is deferred or not */
  DEEDS
};

static const char *const deed_names[DEEDS] = {
    "close the relay",  "drain the relay", "close its subject",
    "close all agents", "close all conns", "settle"};

static const relay_answer answers[] = {RELAY_ALLOW, RELAY_DENY, RELAY_DEFER};

#define CALLS_MAX 256
#define IDS_MAX 64

struct chaos {
  struct host host;
  enum place place;
  enum deed deed;
  relay_answer answer;
  relay_t *relay;   /* also once it is closing; NULL: gone */
  bool done;        /* the deed is */
  uint64_t settled; /* the question that SETTLE answered */
  bool over;        /* no more surprises: the end */
  unsigned opens, closes, let_in;
  uint64_t deferred[CALLS_MAX]; /* open questions */
  unsigned deferred_count;
  uint64_t open_ids[IDS_MAX]; /* told open, not closed */
  unsigned open_count;
  uint64_t agents[IDS_MAX];
  unsigned agent_count;
};

static void forget(uint64_t *list, unsigned *count, uint64_t id) {
  unsigned i;

  for (i = 0; i < *count; i++)
    if (list[i] == id) {
      list[i] = list[--*count];
      return;
    }
}

static bool is_in(const uint64_t *list, unsigned count, uint64_t id) {
  unsigned i;

  for (i = 0; i < count; i++)
    if (list[i] == id)
      return true;
  return false;
}

/* ---- deeds ------------------------------------------------------------ */

static void on_relay_closed(void *data) {
  struct chaos *c = data;

  c->relay = NULL;
  c->host.relay_closed++;
}

static void on_drained(void *data) {
  (void)data;
}

static int note_conn(void *data, const relay_conn_info *conn) {
  uint64_t **at = data;

  *(*at)++ = conn->id;
  return 0;
}

static int note_agent(void *data, const relay_agent_info *agent) {
  uint64_t **at = data;

  *(*at)++ = agent->id;
  return 0;
}

static void close_conns(struct chaos *c) {
  uint64_t ids[IDS_MAX], *end = ids, *at;

  relay_each_conn(c->relay, note_conn, &end);
  for (at = ids; at < end; at++)
    relay_close_conn(c->relay, *at, "all of them");
}

static void close_agents(struct chaos *c) {
  uint64_t ids[IDS_MAX], *end = ids, *at;

  relay_each_agent(c->relay, note_agent, &end);
  for (at = ids; at < end; at++)
    relay_close_agent(c->relay, *at, "all of them");
}

static void act(struct chaos *c, enum place place, uint64_t subject,
                uint64_t call) {
  relay_verdict allow = {.size = sizeof(allow)};

  if (c->place != place || c->done || c->over)
    return;
  c->done = true;
  switch (c->deed) {
  case CLOSE_RELAY:
    c->host.relay = NULL;
    relay_close(c->relay, on_relay_closed, c);
    break;
  case DRAIN_RELAY:
    relay_drain(c->relay, 20, on_drained, c);
    break;
  case CLOSE_SUBJECT:
    relay_close_conn(c->relay, subject, "this one");
    relay_close_agent(c->relay, subject, "this one");
    break;
  case CLOSE_AGENTS:
    close_agents(c);
    break;
  case CLOSE_CONNS:
    close_conns(c);
    break;
  default:
    if (call != 0 && relay_settle(c->relay, call, &allow) == 0)
      c->settled = call;
  }
}

/* The answer to a question. One whose subject has gone meanwhile and that is
   deferred all the same is to be cancelled at once. */
static void answer(struct chaos *c, enum place place, uint64_t call,
                   relay_verdict *verdict) {
  if (c->place != place)
    return;
  verdict->answer = c->answer;
  if (c->answer == RELAY_DEFER && c->settled != call &&
      c->deferred_count < CALLS_MAX)
    c->deferred[c->deferred_count++] = call;
}

/* ---- hooks ------------------------------------------------------------ */

static int on_auth(void *data, uint64_t call, const relay_agent_info *agent,
                   const relay_credentials *credentials,
                   relay_verdict *verdict) {
  struct chaos *c = data;

  (void)credentials;
  act(c, IN_AUTH, agent->id, call);
  answer(c, IN_AUTH, call, verdict);
  if (c->place == IN_CANCEL_AUTH && !c->done) {
    verdict->answer = RELAY_DEFER;
    c->deferred[c->deferred_count++] = call;
  }
  if (c->agent_count < IDS_MAX)
    c->agents[c->agent_count++] = agent->id;
  return 0;
}

static int on_allocate(void *data, uint64_t call, const relay_agent_info *agent,
                       const relay_want *want, relay_verdict *verdict) {
  struct chaos *c = data;

  (void)want;
  act(c, IN_ALLOCATE, agent->id, call);
  answer(c, IN_ALLOCATE, call, verdict);
  return 0;
}

static int on_visitor(void *data, uint64_t call, const relay_conn_info *conn,
                      const relay_agent_info *agents, size_t agent_count,
                      relay_verdict *verdict) {
  struct chaos *c = data;
  relay_conn_info info = {.size = sizeof(info)};

  (void)agents, (void)agent_count;
  if (c->place == IN_PEEK)
    relay_peek_conn(c->relay, conn->id, 50);
  act(c, IN_VISITOR, conn->id, call);
  answer(c, IN_VISITOR, call, verdict);
  if (c->place == IN_CANCEL_CONN && !c->done) {
    verdict->answer = RELAY_DEFER;
    c->deferred[c->deferred_count++] = call;
  }
  if (verdict->answer == RELAY_DEFER && c->settled == call)
    verdict->answer = RELAY_ALLOW; /* what it was settled with */
  /* One that the hook itself has ended is never let in. */
  if (verdict->answer == RELAY_ALLOW &&
      relay_get_conn(c->relay, conn->id, &info) == 0)
    c->let_in++;
  return 0;
}

static int on_peek(void *data, uint64_t call, const relay_conn_info *conn,
                   const void *bytes, size_t count, int eof,
                   relay_verdict *verdict) {
  struct chaos *c = data;

  (void)bytes, (void)count, (void)eof;
  act(c, IN_PEEK, conn->id, call);
  answer(c, IN_PEEK, call, verdict);
  return 0;
}

static void on_open(void *data, const relay_conn_info *conn) {
  struct chaos *c = data;

  c->opens++;
  CHECK(!is_in(c->open_ids, c->open_count, conn->id));
  if (c->open_count < IDS_MAX)
    c->open_ids[c->open_count++] = conn->id;
  act(c, IN_OPEN, conn->id, 0);
}

static void on_close(void *data, const relay_conn_info *conn) {
  struct chaos *c = data;

  c->closes++;
  forget(c->open_ids, &c->open_count, conn->id);
  act(c, IN_CLOSE, conn->id, 0);
}

static void on_gone(void *data, const relay_agent_info *agent, int reason) {
  struct chaos *c = data;

  CHECK(is_in(c->agents, c->agent_count, agent->id));
  forget(c->agents, &c->agent_count, agent->id);
  act(c, IN_GONE, agent->id, 0);
  if (reason == RELAY_EREPLACED)
    act(c, IN_REPLACED, agent->id, 0);
}

static uint64_t on_tick(void *data, uint64_t now_ms) {
  (void)now_ms;
  act(data, IN_TICK, 0, 0);
  return 5;
}

static void on_cancel(void *data, uint64_t call) {
  struct chaos *c = data;

  CHECK(is_in(c->deferred, c->deferred_count, call));
  forget(c->deferred, &c->deferred_count, call);
  act(c, IN_CANCEL_AUTH, 0, call);
  act(c, IN_CANCEL_CONN, 0, call);
}

/* ---- one life --------------------------------------------------------- */

static void set_hooks(struct chaos *c) {
  c->host.policy = (relay_policy){.size = sizeof(c->host.policy),
                                  .data = c,
                                  .auth = on_auth,
                                  .allocate = on_allocate,
                                  .visitor = on_visitor,
                                  .peek = on_peek,
                                  .open = on_open,
                                  .close = on_close,
                                  .agent_gone = on_gone,
                                  .tick = on_tick,
                                  .cancel = on_cancel};
}

static void turns(struct host *h, unsigned ms) {
  uint64_t until = uv_hrtime() + ms * UINT64_C(1000000);

  while (uv_hrtime() < until)
    host_turn(h);
}

/* The same, but no longer than until `so`. */
#define TURNS_UNTIL(h, ms, so)                                                 \
  do {                                                                         \
    uint64_t until_ = uv_hrtime() + (ms)*UINT64_C(1000000);                    \
    while (!(so) && uv_hrtime() < until_)                                      \
      host_turn(h);                                                            \
  } while (0)

/* -1 when nobody listens there any more. */
static int connect_to(unsigned port) {
  struct sockaddr_in to = {.sin_family = AF_INET,
                           .sin_port = htons((uint16_t)port),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);

  if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
    close(fd);
    return -1;
  }
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

/* A control connection typed by hand, with what LISTEN is to say. Its ticket,
   if it got an address. */
static int type_agent(struct chaos *c, const char *words, char *ticket,
                      size_t size) {
  char bytes[1024] = "";
  uint64_t until = uv_hrtime() + UINT64_C(100000000);
  ssize_t count;
  char *at;
  int fd;

  ticket[0] = '\0';
  if (c->host.relay == NULL)
    return -1;
  fd = connect_to(relay_port(c->host.relay));
  if (fd < 0)
    return -1;
  visitor_say(fd, "RELAY/1 LISTEN ");
  visitor_say(fd, words);
  visitor_say(fd, "\n");
  while (visitor_sees(fd) == '-' && uv_hrtime() < until)
    host_turn(&c->host);
  count = recv(fd, bytes, sizeof(bytes) - 1, 0);
  bytes[count > 0 ? count : 0] = '\0';
  at = strstr(bytes, "resume=");
  if (at != NULL)
    snprintf(ticket, size, "%.*s", (int)strcspn(at, " \n"), at);
  return fd;
}

static void live(struct chaos *c) {
  struct host *h = &c->host;
  char ticket[256], other[256];
  unsigned given = 0;
  int typed, again = -1, visitors[4], i;

  typed = type_agent(c, "name=typed", ticket, sizeof(ticket));
  if (c->place == IN_REPLACED && ticket[0] != '\0')
    again = type_agent(c, ticket, other, sizeof(other));
  TURNS_UNTIL(h, 5000, h->established != 0 || h->agent_ends != 0 || c->done);
  given = h->established != 0 ? h->port : 0;
  for (i = 0; i < 4; i++) {
    visitors[i] = given != 0 && h->relay != NULL ? connect_to(given) : -1;
    if (visitors[i] >= 0)
      visitor_say(visitors[i], HELLO);
  }
  TURNS_UNTIL(h, 5000, h->visits >= 4 || c->done);
  for (i = 0; i < 4; i++)
    if (visitors[i] >= 0)
      visitor_close(visitors[i], i % 2 == 0);
  turns(h, 2);
  if (typed >= 0)
    visitor_close(typed, true);
  if (again >= 0)
    visitor_close(again, false);
  TURNS_UNTIL(h, 5000, c->done); /* the first tick is a second away */
  /* What was deferred is too late by now. */
  turns(h, c->answer == RELAY_DEFER ? 30 : 2);
}

static void finish(struct chaos *c) {
  struct host *h = &c->host;
  relay_verdict allow = {.size = sizeof(allow)};
  unsigned i;

  c->over = true;
  for (i = 0; i < c->deferred_count && h->relay != NULL; i++)
    if (relay_settle(h->relay, c->deferred[i], &allow) == 0) {
      c->deferred[i--] = c->deferred[--c->deferred_count];
      if (c->place == IN_CANCEL_CONN || c->place == IN_VISITOR)
        c->let_in++;
    }
  host_close_agent(h);
  if (h->relay != NULL)
    relay_close(h->relay, on_relay_closed, c);
  CHECK_INT(0, uv_run(&h->loop, UV_RUN_DEFAULT));
  CHECK_INT(1, h->relay_closed);
  CHECK_INT(1, h->agent_closed);
  CHECK_INT(0, uv_loop_close(&h->loop));
  CHECK(c->done);
  CHECK_INT(c->let_in, c->closes);
  CHECK(c->opens <= c->closes);
  CHECK_INT(0, c->open_count);
  CHECK_INT(0, c->deferred_count);
  CHECK_INT(h->visits, h->visit_ends);
}

static char life[128];

static void on_alarm(int number) {
  static const char text[] = "a life does not end: ";

  (void)number;
  if (write(2, text, sizeof(text) - 1) < 0 || write(2, life, strlen(life)) < 0)
    _exit(4);
  _exit(3);
}

static void run_life(enum place place, enum deed deed, relay_answer given) {
  struct chaos c;

  memset(&c, 0, sizeof(c));
  host_prepare(&c.host);
  c.place = place;
  c.deed = deed;
  c.answer = given;
  set_hooks(&c);
  c.host.options.hook_agent_ms = 10;
  c.host.options.hook_visitor_ms = 10;
  c.host.options.grace_ms = 2000;
  c.host.options.park_ms = 2000;
  c.host.options.pairing_ms = 2000;
  c.host.agent_options.pool = deed % 2;
  host_start(&c.host);
  c.relay = c.host.relay;
  alarm(20);
  TURNS_UNTIL(&c.host, 5000,
              c.host.established != 0 || c.host.agent_ends != 0 || c.done);
  live(&c);
  finish(&c);
}

static void run_place(enum place place) {
  /* Only the first hooks are questions. */
  unsigned count = place <= IN_PEEK ? sizeof(answers) / sizeof(*answers) : 1;
  unsigned deed, i;

  for (deed = 0; deed < DEEDS; deed++)
    for (i = 0; i < count; i++) {
      bool was_ok = check_ok_;

      snprintf(life, sizeof(life), "in %s: %s, then answer %d\n",
               place_names[place], deed_names[deed], (int)answers[i]);
      run_life(place, deed, answers[i]);
      if (was_ok && !check_ok_)
        fputs(life, stderr);
    }
}

TEST(in_auth) {
  run_place(IN_AUTH);
}
TEST(in_allocate) {
  run_place(IN_ALLOCATE);
}
TEST(in_visitor) {
  run_place(IN_VISITOR);
}
TEST(in_peek) {
  run_place(IN_PEEK);
}
TEST(in_open) {
  run_place(IN_OPEN);
}
TEST(in_close) {
  run_place(IN_CLOSE);
}
TEST(in_agent_gone) {
  run_place(IN_GONE);
}
TEST(in_tick) {
  run_place(IN_TICK);
}
TEST(in_cancel_of_auth) {
  run_place(IN_CANCEL_AUTH);
}
TEST(in_cancel_of_visitor) {
  run_place(IN_CANCEL_CONN);
}
TEST(in_agent_gone_of_a_replaced_one) {
  run_place(IN_REPLACED);
}

int main(void) {
  signal(SIGALRM, on_alarm);
  RUN(in_auth);
  RUN(in_allocate);
  RUN(in_visitor);
  RUN(in_peek);
  RUN(in_open);
  RUN(in_close);
  RUN(in_agent_gone);
  RUN(in_tick);
  RUN(in_cancel_of_auth);
  RUN(in_cancel_of_visitor);
  RUN(in_agent_gone_of_a_replaced_one);
  return check_report();
}
