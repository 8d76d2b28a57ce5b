/* SPDX-License-Identifier: MIT */
/*
 * Hooks that end things: each hook closes what it is asked about, its agent,
 * or the whole relay, from within, and gives each answer all the same. The
 * relay must come through, and leave nothing on the loop.
 */
#include <arpa/inet.h>
#include <relay/agent.h>
#include <relay/relay.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "check.h"

#define TURN_MS 6
#define TURNS 10

struct scene {
  const char *hook; /* that acts, once */
  const char *deed;
  relay_answer answer; /* that it gives */
  bool acted;
  bool closed;
  bool drained;
  uv_loop_t loop;
  uv_timer_t turn;
  unsigned turns;
  relay_t *relay;
  relay_agent *agent;
  uint64_t agent_id;
  unsigned port; /* of the agent by hand */
  unsigned opened;
  unsigned ended;
  int visitor;
  int control[2]; /* agents by hand */
};

static struct scene *now;

static void on_closed(void *data) {
  (void)data;
  now->closed = true;
}

static void on_drained(void *data) {
  (void)data;
  now->drained = true;
}

/* Does the deed where it is this hook's turn. */
static void act(const char *hook, uint64_t id, relay_verdict *verdict) {
  if (strcmp(hook, now->hook) != 0)
    return;
  if (verdict != NULL)
    verdict->answer = now->answer;
  if (now->acted)
    return;
  now->acted = true;
  if (strcmp(now->deed, "close relay") == 0)
    relay_close(now->relay, on_closed, NULL);
  else if (strcmp(now->deed, "drain relay") == 0)
    relay_drain(now->relay, 0, on_drained, NULL);
  else if (strcmp(now->deed, "close agent") == 0)
    relay_close_agent(now->relay, now->agent_id, "a test");
  else
    relay_close_conn(now->relay, id, "a test");
}

static int auth(void *data, uint64_t call, const relay_agent_info *agent,
                const relay_credentials *credentials, relay_verdict *verdict) {
  (void)data, (void)call, (void)credentials;
  now->agent_id = agent->id;
  if (strcmp(now->hook, "cancel") == 0)
    verdict->answer = RELAY_DEFER;
  act("auth", agent->id, verdict);
  return 0;
}

static int allocate(void *data, uint64_t call, const relay_agent_info *agent,
                    const relay_want *want, relay_verdict *verdict) {
  (void)data, (void)call, (void)want;
  act("allocate", agent->id, verdict);
  return 0;
}

static int visitor(void *data, uint64_t call, const relay_conn_info *conn,
                   const relay_agent_info *agents, size_t count,
                   relay_verdict *verdict) {
  (void)data, (void)call, (void)agents, (void)count;
  if (strcmp(now->hook, "peek") == 0)
    relay_peek_conn(now->relay, conn->id, 1000);
  act("visitor", conn->id, verdict);
  return 0;
}

static int peek(void *data, uint64_t call, const relay_conn_info *conn,
                const void *bytes, size_t count, int eof,
                relay_verdict *verdict) {
  (void)data, (void)call, (void)bytes, (void)count, (void)eof;
  act("peek", conn->id, verdict);
  return 0;
}

static void on_open(void *data, const relay_conn_info *conn) {
  (void)data;
  now->opened++;
  act("open", conn->id, NULL);
}

static void on_close(void *data, const relay_conn_info *conn) {
  (void)data;
  now->ended++;
  act("close", conn->id, NULL);
}

static void agent_gone(void *data, const relay_agent_info *agent, int reason) {
  (void)data, (void)agent, (void)reason;
  act("agent_gone", 0, NULL);
}

static uint64_t tick(void *data, uint64_t ms) {
  (void)data, (void)ms;
  act("tick", 0, NULL);
  return 10;
}

static void cancel(void *data, uint64_t call) {
  (void)data, (void)call;
  act("cancel", 0, NULL);
}

/* ---- around the relay ------------------------------------------------- */

static int connect_to(unsigned port) {
  struct sockaddr_in address = {0};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  (void)connect(fd, (struct sockaddr *)&address, sizeof(address));
  return fd;
}

static void say(int fd, const char *text) {
  (void)send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static void on_visitor(void *data, relay_agent *agent,
                       const relay_visitor_info *info) {
  (void)data;
  relay_agent_serve_echo(agent, info->id);
}

static void on_established(void *data, relay_agent *agent, const char *host,
                           unsigned port, int fresh) {
  (void)data, (void)agent, (void)host, (void)fresh;
  if (now->visitor >= 0)
    return;
  now->visitor = connect_to(port);
  say(now->visitor, "hello");
}

static void start_agent(unsigned pool) {
  relay_agent_options wants;

  relay_agent_options_init(&wants, sizeof(wants));
  wants.host = "127.0.0.1";
  wants.port = relay_port(now->relay);
  wants.pool = pool;
  wants.on_visitor = on_visitor;
  wants.on_established = on_established;
  CHECK_INT(0, relay_agent_new(&now->agent, &now->loop, &wants));
}

/* A second agent with the ticket of the first, which is still there. False
   while that has none. */
static bool take_over(void) {
  char line[1024] = "", text[1100];
  char *ticket;

  (void)recv(now->control[0], line, sizeof(line) - 1, MSG_DONTWAIT);
  ticket = strstr(line, "resume=");
  if (ticket == NULL)
    return false;
  now->port = (unsigned)atoi(strstr(line, "port=") + 5);
  ticket[strcspn(ticket, " \n")] = '\0';
  snprintf(text, sizeof(text), "RELAY/1 LISTEN %s\n", ticket);
  now->control[1] = connect_to(relay_port(now->relay));
  say(now->control[1], text);
  return true;
}

static void close_fd(int *fd) {
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

/* The story: an agent, a visitor, its end, the agent's, the relay's. */
static void on_turn(uv_timer_t *timer) {
  if (now->turns == 3 && now->control[0] >= 0 && !take_over())
    return;
  now->turns++;
  if (now->turns == 5 && now->port != 0)
    now->visitor = connect_to(now->port);
  else if (now->turns == 5)
    close_fd(&now->visitor);
  if (now->turns == 7 && now->agent != NULL)
    relay_agent_close(now->agent, NULL, NULL);
  if (now->turns < TURNS)
    return;
  close_fd(&now->control[0]);
  close_fd(&now->control[1]);
  if (!now->closed)
    relay_close(now->relay, on_closed, NULL);
  uv_close((uv_handle_t *)timer, NULL);
}

static void play(const char *hook, const char *deed, relay_answer answer,
                 unsigned pool) {
  static const relay_policy policy = {
      sizeof(policy), NULL,       auth, allocate, visitor, peek, on_open,
      on_close,       agent_gone, tick, NULL,     cancel,  NULL};
  struct scene scene = {.hook = hook, .deed = deed, .answer = answer};
  bool takes_over = strcmp(hook, "agent_gone") == 0 && pool == 0;
  relay_options options;

  now = &scene;
  scene.visitor = scene.control[0] = scene.control[1] = -1;
  CHECK_INT(0, uv_loop_init(&scene.loop));
  relay_options_init(&options, sizeof(options));
  options.listen_host = "127.0.0.1";
  options.policy = &policy;
  options.hook_agent_ms = options.hook_visitor_ms = 12;
  options.grace_ms = 15;
  CHECK_INT(0, relay_new(&scene.relay, &scene.loop, &options));
  if (takes_over) { /* by hand, as the library would not */
    scene.control[0] = connect_to(relay_port(scene.relay));
    say(scene.control[0], "RELAY/1 LISTEN\n");
  } else {
    start_agent(pool);
  }
  uv_timer_init(&scene.loop, &scene.turn);
  uv_timer_start(&scene.turn, on_turn, TURN_MS, TURN_MS);
  uv_run(&scene.loop, UV_RUN_DEFAULT);
  close_fd(&scene.visitor);
  CHECK(scene.closed);
  CHECK(scene.opened <= scene.ended);
  if (!CHECK_INT(0, uv_loop_close(&scene.loop)) || !check_ok_)
    fprintf(stderr, "  %s, %s, answer %d, pool %u\n", hook, deed, answer, pool);
}

static bool is_one_of(const char *word, const char *const *list) {
  for (; *list != NULL; list++)
    if (strcmp(*list, word) == 0)
      return true;
  return false;
}

static void play_all(const char *hook) {
  static const char *const deeds[] = {"close relay", "drain relay",
                                      "close agent", "close conn"};
  static const char *const deciding[] = {"auth", "allocate", "visitor", "peek",
                                         NULL};
  static const relay_answer answers[] = {RELAY_ALLOW, RELAY_DENY, RELAY_DEFER,
                                         RELAY_NEED};
  unsigned count = is_one_of(hook, deciding) ? 4 : 1;

  for (unsigned d = 0; d < 4; d++)
    for (unsigned a = 0; a < count; a++)
      for (unsigned pool = 0; pool <= 2; pool += 2)
        play(hook, deeds[d], answers[a], pool);
}

TEST(auth) {
  play_all("auth");
}
TEST(allocate) {
  play_all("allocate");
}
TEST(visitor) {
  play_all("visitor");
}
TEST(peek) {
  play_all("peek");
}
TEST(open) {
  play_all("open");
}
TEST(close) {
  play_all("close");
}
TEST(agent_gone) {
  play_all("agent_gone");
}
TEST(tick) {
  play_all("tick");
}
TEST(cancel) {
  play_all("cancel");
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(auth);
  RUN(allocate);
  RUN(visitor);
  RUN(peek);
  RUN(open);
  RUN(close);
  RUN(agent_gone);
  RUN(tick);
  RUN(cancel);
  return check_report();
}
