/* SPDX-License-Identifier: MIT */
/*
 * The agent half against a relay played by hand: how it serves visitors. Each
 * test also sees that nothing is left on the loop.
 */
#include "agent_rig.h"

/* ---- serving ---------------------------------------------------------- */

TEST(echoes) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, VISITOR("v1"));
  int data = take_data(&rig, "RELAY/1 ACCEPT session=s1 id=v1");
  CHECK_STR("v1", rig.visitor_id);
  CHECK_STR("192.0.2.7:1234", rig.from);
  CHECK_STR("192.0.2.1:4711", rig.to);
  CHECK_INT(1, relay_agent_visitors(rig.agent));
  rig_send(data, "hello");
  rig_expect(&rig, data, "hello");
  CHECK_INT(UV_EALREADY, relay_agent_serve_echo(rig.agent, "v1"));
  CHECK_INT(RELAY_EGONE, relay_agent_serve_echo(rig.agent, "v2"));
  shutdown(data, SHUT_WR);
  CHECK_INT(0, rig_end(&rig, data));
  AWAIT(&rig, rig.ends == 1);
  CHECK_INT(0, rig.last_end.reason);
  CHECK_INT(5, rig.last_end.bytes_in);
  CHECK_INT(5, rig.last_end.bytes_out);
  CHECK_INT(0, relay_agent_visitors(rig.agent));
  CHECK_INT(RELAY_EGONE, relay_agent_serve_echo(rig.agent, "v1"));
  close(data);
  rig_finish(&rig);
}

/* The line and the first bytes come in one segment, and not one is lost. */
TEST(echoes_from_the_pool) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.options.pool = 4;
  rig_start(&rig);
  rig_welcome(&rig, OK_POOL);
  int data = take_data(&rig, "RELAY/1 WAIT session=s1 n=1");
  rig_idle(&rig, 50);
  CHECK_INT(-1, accept(rig.listener, NULL, NULL)); /* one was granted */
  rig_send(data, VISITOR("v1") "hello");
  rig_expect(&rig, data, "hello");
  int next = take_data(&rig, "RELAY/1 WAIT session=s1 n=2");
  shutdown(data, SHUT_WR);
  CHECK_INT(0, rig_end(&rig, data));
  AWAIT(&rig, rig.ends == 1);
  CHECK_INT(0, rig.last_end.reason);
  CHECK_INT(5, rig.last_end.bytes_in);
  /* A line that comes in pieces; then one that is none. */
  rig_send(next, "VISITOR id=v2 fr");
  rig_idle(&rig, 20);
  rig_send(next, "om=192.0.2.7:1 to=192.0.2.1:2\nabc");
  rig_expect(&rig, next, "abc");
  close(next);
  next = take_data(&rig, "RELAY/1 WAIT session=s1 n=3");
  rig_send(next, "OK host=h port=1 session=s\n");
  CHECK_INT(ECONNRESET, rig_end(&rig, next));
  close(next);
  next = take_data(&rig, "RELAY/1 WAIT session=s1 n=4");
  close(next);
  close(data);
  rig_finish(&rig);
}

TEST(replaces_old_waiting_connections) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.options.pool = 4;
  rig.options.pool_age_ms = 60;
  rig_start(&rig);
  rig_welcome(&rig, OK_POOL);
  int old = take_data(&rig, "RELAY/1 WAIT session=s1 n=1");
  int young = take_data(&rig, "RELAY/1 WAIT session=s1 n=2");
  CHECK_INT(ECONNRESET, rig_end(&rig, old));
  close(old);
  close(young);
  rig_finish(&rig);
}

TEST(forwards_to_an_address) {
  struct agent_rig rig;
  unsigned port;

  rig_prepare(&rig);
  rig.answer = ANSWER_ADDRESS;
  rig.preamble = "PREAMBLE\r\n";
  int service = rig_listen(&port);
  rig.target.sin_family = AF_INET;
  rig.target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  rig.target.sin_port = htons((uint16_t)port);
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, VISITOR("v1"));
  int data = take_data(&rig, "RELAY/1 ACCEPT session=s1 id=v1");
  int local = rig_accept(&rig, service);
  rig_send(data, "question");
  rig_expect(&rig, local, "PREAMBLE\r\nquestion");
  shutdown(data, SHUT_WR);
  CHECK_INT(0, rig_end(&rig, local));
  rig_send(local, "answer");
  rig_expect(&rig, data, "answer");
  shutdown(local, SHUT_WR);
  CHECK_INT(0, rig_end(&rig, data));
  AWAIT(&rig, rig.ends == 1);
  CHECK_INT(0, rig.last_end.reason);
  CHECK_INT(8, rig.last_end.bytes_in);
  CHECK_INT(6, rig.last_end.bytes_out);
  close(local);
  close(data);
  close(service);
  rig_finish(&rig);
}

static bool is_open(int fd) {
  char byte;

  return recv(fd, &byte, 1, 0) < 0 && errno == EAGAIN;
}

static void reset(int fd) {
  struct linger at_once = {1, 0};

  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(fd);
}

/* No service: the relay is told, and it is the relay that resets the data
   connection, since a reset could be there before the word. */
static void refuse_visitor(enum answer answer) {
  struct agent_rig rig;
  unsigned port;

  rig_prepare(&rig);
  rig.answer = answer;
  close(rig_listen(&port)); /* nobody listens there */
  rig.target.sin_family = AF_INET;
  rig.target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  rig.target.sin_port = htons((uint16_t)port);
  rig.options.pool = 1;
  rig_start(&rig);
  rig_welcome(&rig, OK_POOL);
  int data = take_data(&rig, "RELAY/1 WAIT session=s1 n=1");
  rig_send(data, VISITOR("v1"));
  CHECK_STR("REJECT id=v1 reason=service:%20connection%20refused",
            rig_word(&rig, rig.control));
  AWAIT(&rig, rig.ends == 1);
  CHECK_INT(UV_ECONNREFUSED, rig.last_end.reason);
  rig_idle(&rig, 20);
  CHECK(is_open(data));
  int next = take_data(&rig, "RELAY/1 WAIT session=s1 n=2");
  int before = count_descriptors();
  reset(data);
  AWAIT(&rig, count_descriptors() == before - 2);
  close(next);
  rig_finish(&rig);
}

/* Nobody will reset what is reset already. */
TEST(keeps_no_connection_that_is_dead) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.answer = ANSWER_LATER;
  rig.options.pool = 1;
  rig_start(&rig);
  rig_welcome(&rig, OK_POOL);
  int data = take_data(&rig, "RELAY/1 WAIT session=s1 n=1");
  rig_send(data, VISITOR("v1"));
  int next = take_data(&rig, "RELAY/1 WAIT session=s1 n=2");
  AWAIT(&rig, rig.visitors == 1);
  int before = count_descriptors();
  reset(data);
  AWAIT(&rig, rig.ends == 1);
  CHECK_INT(before - 2, count_descriptors());
  close(next);
  rig_finish(&rig);
}

TEST(rejects_when_the_service_is_down) {
  refuse_visitor(ANSWER_ADDRESS);
  refuse_visitor(ANSWER_NAME);
}

TEST(serves_a_descriptor) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.answer = ANSWER_FD;
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, VISITOR("v1"));
  int data = take_data(&rig, "RELAY/1 ACCEPT session=s1 id=v1");
  rig_send(data, "in");
  rig_expect(&rig, rig.fd, "in");
  rig_send(rig.fd, "out");
  rig_expect(&rig, data, "out");
  CHECK(relay_agent_serve_fd(rig.agent, "v1", 0) < 0);
  close(data); /* in the middle: what was not read resets it */
  AWAIT(&rig, relay_agent_visitors(rig.agent) <= 1);
  rig_finish(&rig);
  CHECK_INT(1, rig.ends);
}

TEST(turns_visitors_away) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.answer = ANSWER_REJECT;
  rig.options.max_visitors = 1;
  rig.options.visit_ms = 60;
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, VISITOR("v1"));
  CHECK_STR("REJECT id=v1 reason=not%20today", rig_word(&rig, rig.control));
  AWAIT(&rig, rig.ends == 1);
  CHECK_INT(RELAY_EDENIED, rig.last_end.reason);
  rig.answer = ANSWER_LATER;
  rig_send(rig.control, VISITOR("v2") VISITOR("v3"));
  CHECK_STR("REJECT id=v3 reason=busy", rig_word(&rig, rig.control));
  CHECK_STR("REJECT id=v2 reason=not%20answered%20in%20time",
            rig_word(&rig, rig.control));
  AWAIT(&rig, rig.ends == 2);
  CHECK_INT(UV_ETIMEDOUT, rig.last_end.reason);
  CHECK_INT(2, rig.visitors);
  rig_finish(&rig);
}

/* The words are cut where the line is full: they must not keep it back. */
TEST(rejects_in_many_words) {
  struct agent_rig rig;
  char reason[4000];
  const char *line;

  memset(reason, 'x', sizeof(reason) - 1);
  reason[sizeof(reason) - 1] = '\0';
  rig_prepare(&rig);
  rig.answer = ANSWER_LATER;
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, VISITOR("v1"));
  AWAIT(&rig, rig.visitors == 1);
  CHECK_INT(0, relay_agent_reject(rig.agent, "v1", reason));
  line = rig_word(&rig, rig.control);
  CHECK(strncmp(line, "REJECT id=v1 reason=xxxx", 24) == 0);
  CHECK_INT(1023, strlen(line));
  AWAIT(&rig, rig.ends == 1);
  rig_finish(&rig);
}

TEST(drops_who_has_gone) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.answer = ANSWER_LATER;
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, VISITOR("v1"));
  AWAIT(&rig, rig.visitors == 1);
  rig_send(rig.control, "GONE id=v1 code=gone\nGONE id=unknown code=gone\n");
  AWAIT(&rig, rig.ends == 1);
  CHECK_INT(RELAY_EGONE, rig.last_end.reason);
  CHECK_INT(RELAY_EGONE, relay_agent_serve_echo(rig.agent, "v1"));
  /* A joined one has its end on its data connection, and nowhere else: what
     was refused may be a replay of its ACCEPT. */
  rig.answer = ANSWER_ECHO;
  rig_send(rig.control, VISITOR("v2"));
  int data = take_data(&rig, "RELAY/1 ACCEPT session=s1 id=v2");
  rig_send(rig.control, "GONE id=v2 code=gone\nPING n=7\n");
  CHECK_STR("PONG n=7", rig_line(&rig, rig.control));
  rig_send(data, "still here");
  rig_expect(&rig, data, "still here");
  CHECK_INT(1, rig.ends);
  close(data);
  AWAIT(&rig, rig.ends == 2);
  rig_finish(&rig);
}

/* ---- where data connections go ---------------------------------------- */

static void dial_elsewhere(const char *host) {
  struct agent_rig rig;
  unsigned port;
  char ok[256];

  rig_prepare(&rig);
  int elsewhere = rig_listen(&port);
  snprintf(ok, sizeof(ok), "OK host=h port=1 session=s1 dial=%s:%u\n", host,
           port);
  rig_start(&rig);
  rig.control = rig_accept(&rig, rig.listener);
  rig_line(&rig, rig.control);
  rig_send(rig.control, ok);
  /* Even a visitor that comes while the name is looked up. */
  rig_send(rig.control, VISITOR("v1"));
  int data = rig_accept(&rig, elsewhere);
  CHECK_STR("RELAY/1 ACCEPT session=s1 id=v1", rig_line(&rig, data));
  rig_send(data, "x");
  rig_expect(&rig, data, "x");
  CHECK_INT(1, rig.established);
  close(data);
  close(elsewhere);
  rig_finish(&rig);
}

TEST(dials_where_it_is_told) {
  dial_elsewhere("127.0.0.1");
  dial_elsewhere("localhost");
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(echoes);
  RUN(echoes_from_the_pool);
  RUN(replaces_old_waiting_connections);
  RUN(forwards_to_an_address);
  RUN(keeps_no_connection_that_is_dead);
  RUN(rejects_when_the_service_is_down);
  RUN(serves_a_descriptor);
  RUN(turns_visitors_away);
  RUN(rejects_in_many_words);
  RUN(drops_who_has_gone);
  RUN(dials_where_it_is_told);
  return check_report();
}
