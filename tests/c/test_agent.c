/* SPDX-License-Identifier: MIT */
/*
 * The agent half against a relay played by hand: what it asks for, how it
 * loses a relay and comes back, how it ends. Each test also sees that nothing
 * is left on the loop.
 */
#include "agent_rig.h"

/* ---- asking ----------------------------------------------------------- */

TEST(asks_for_what_it_wants) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.options.want_port = 8081;
  rig.options.name = "a name";
  rig.options.pool = 3;
  rig_start(&rig);
  rig.control = rig_accept(&rig, rig.listener);
  CHECK_STR("RELAY/1 LISTEN port=8081 name=a%20name host=127.0.0.1 pool=3",
            rig_line(&rig, rig.control));
  rig_send(rig.control, OK_PLAIN);
  AWAIT(&rig, rig.established == 1);
  CHECK_INT(1, rig.fresh);
  CHECK_STR("example.net", rig.host);
  CHECK_INT(4711, rig.given_port);
  relay_agent_close(rig.agent, on_rig_closed, &rig);
  rig.agent = NULL;
  CHECK_STR("BYE", rig_line(&rig, rig.control));
  rig_finish(&rig);
}

TEST(refuses_bad_options) {
  struct agent_rig rig;
  relay_agent *agent;

  rig_prepare(&rig);
  rig.options.host = NULL;
  CHECK_INT(UV_EINVAL, relay_agent_new(&agent, &rig.loop, &rig.options));
  rig.options.host = "127.0.0.1";
  rig.options.port = 0;
  CHECK_INT(UV_EINVAL, relay_agent_new(&agent, &rig.loop, &rig.options));
  rig.options.port = 1;
  rig.options.name =
      "a name of more bytes than the relay would keep, which is 64 of them";
  CHECK_INT(UV_EINVAL, relay_agent_new(&agent, &rig.loop, &rig.options));
  rig.options.name = NULL;
  rig.options.on_visitor = NULL;
  CHECK_INT(UV_EINVAL, relay_agent_new(&agent, &rig.loop, &rig.options));
  rig.closed = true;
  rig_finish(&rig);
}

/* An OK that is none is a loss: the next attempt comes. */
TEST(does_not_take_a_bad_ok) {
  static const char *const bad[] = {"OK host=h port=0 session=s\n",
                                    "OK host=h port=1\n",
                                    "OK port=1 session=s\n",
                                    "OK host=a%20b port=1 session=s\n",
                                    "OK host=h port=1 session=s dial=nowhere\n",
                                    "VISITOR id=1\n",
                                    "HTTP/1.1 400 Bad Request\r\n"};
  struct agent_rig rig;

  rig_prepare(&rig);
  rig_start(&rig);
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    int fd = rig_accept(&rig, rig.listener);

    CHECK(strncmp(rig_line(&rig, fd), "RELAY/1 LISTEN", 14) == 0);
    rig_send(fd, bad[i]);
    CHECK_INT(ECONNRESET, rig_end(&rig, fd));
    close(fd);
  }
  CHECK_INT(0, rig.established);
  rig_welcome(&rig, OK_PLAIN);
  rig_finish(&rig);
}

/* ---- losing the relay ------------------------------------------------- */

TEST(comes_back_with_its_ticket) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, VISITOR("v1"));
  int data = take_data(&rig, "RELAY/1 ACCEPT session=s1 id=v1");
  rig_send(data, "x");
  rig_expect(&rig, data, "x");
  rig.answer = ANSWER_LATER;
  rig_send(rig.control, VISITOR("v2"));
  AWAIT(&rig, rig.visitors == 2);
  close(rig.control);
  AWAIT(&rig, rig.ends == 1); /* v2 waited in vain */
  rig.control = rig_accept(&rig, rig.listener);
  CHECK_STR("RELAY/1 LISTEN port=4711 host=127.0.0.1 resume=t1",
            rig_line(&rig, rig.control));
  rig_send(rig.control, "OK host=example.net port=4711 session=s2\n");
  AWAIT(&rig, rig.established == 2);
  CHECK_INT(1, rig.fresh);
  rig_send(data, "still"); /* v1 goes on */
  rig_expect(&rig, data, "still");
  close(data);
  rig_finish(&rig);
}

TEST(asks_for_any_port_when_its_own_is_taken) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  close(rig.control);
  int fd = rig_accept(&rig, rig.listener);
  rig_line(&rig, fd);
  rig_send(fd, "ERR code=port-taken final=yes reason=taken\n");
  close(fd);
  rig.control = rig_accept(&rig, rig.listener);
  CHECK_STR("RELAY/1 LISTEN host=127.0.0.1", rig_line(&rig, rig.control));
  rig_send(rig.control, "OK host=example.net port=4712 session=s2\n");
  AWAIT(&rig, rig.established == 2);
  CHECK_INT(2, rig.fresh);
  rig_finish(&rig);
}

TEST(ends_when_it_is_refused_for_good) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.options.want_port = 22;
  rig_start(&rig);
  int fd = rig_accept(&rig, rig.listener);
  rig_line(&rig, fd);
  rig_send(fd, "ERR code=busy final=no retry=0 reason=full\n");
  close(fd);
  fd = rig_accept(&rig, rig.listener);
  rig_line(&rig, fd);
  rig_send(fd, "ERR code=port-refused final=yes reason=no%1b%0Away\n");
  AWAIT(&rig, rig.agent_ends == 1);
  CHECK_INT(RELAY_EPORT_REFUSED, rig.end_error);
  CHECK(strstr(rig.end_reason, "relay refused: no??way") != NULL);
  close(fd);
  rig_idle(&rig, 30);
  CHECK_INT(-1, accept(rig.listener, NULL, NULL));
  CHECK_INT(1, rig.agent_ends);
  rig_finish(&rig);
}

TEST(heeds_goodbyes) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, "BYE retry=0 reason=restart\n");
  close(rig.control);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, "BYE retry=never reason=replaced\n");
  AWAIT(&rig, rig.agent_ends == 1);
  CHECK(rig.end_error < 0);
  CHECK(strstr(rig.end_reason, "replaced") != NULL);
  rig_finish(&rig);
}

TEST(ends_at_the_first_loss_if_told_to) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.options.once = 1;
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  close(rig.control);
  rig.control = -1;
  AWAIT(&rig, rig.agent_ends == 1);
  CHECK(rig.end_error < 0);
  CHECK(strstr(rig.end_reason, "relay lost") != NULL);
  rig_finish(&rig);
}

TEST(retries_a_relay_that_is_not_there) {
  struct agent_rig rig;
  struct sockaddr_in address = {0};

  rig_prepare(&rig);
  close(rig.listener);
  rig_start(&rig);
  rig_idle(&rig, 50);
  CHECK_INT(0, rig.agent_ends);
  rig.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons((uint16_t)rig.port);
  setsockopt(rig.listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
  CHECK_INT(0,
            bind(rig.listener, (struct sockaddr *)&address, sizeof(address)));
  CHECK_INT(0, listen(rig.listener, 4));
  rig_welcome(&rig, OK_PLAIN);
  rig_finish(&rig);
}

TEST(answers_pings_and_sends_its_own) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.options.heartbeat_ms = 20;
  rig.options.dead_ms = 1000;
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  CHECK_STR("PING n=1", rig_line(&rig, rig.control));
  rig_send(rig.control, "PONG n=1\nPING n=77\n");
  const char *line = rig_line(&rig, rig.control);
  while (strncmp(line, "PING", 4) == 0)
    line = rig_line(&rig, rig.control);
  CHECK_STR("PONG n=77", line);
  /* No PONG any more: lost, and back. */
  uint64_t before = uv_hrtime();
  while (*rig_line(&rig, rig.control) != '\0')
    continue;
  CHECK((uv_hrtime() - before) / 1000000 >= 900);
  close(rig.control);
  rig_welcome(&rig, OK_PLAIN);
  rig_finish(&rig);
}

/* ---- the end ---------------------------------------------------------- */

TEST(drains) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, VISITOR("v1"));
  int data = take_data(&rig, "RELAY/1 ACCEPT session=s1 id=v1");
  rig_send(data, "x");
  rig_expect(&rig, data, "x");
  relay_agent_drain(rig.agent, 10000);
  CHECK_STR("BYE", rig_word(&rig, rig.control));
  rig_send(data, "more");
  rig_expect(&rig, data, "more");
  CHECK_INT(0, rig.agent_ends);
  shutdown(data, SHUT_WR);
  AWAIT(&rig, rig.agent_ends == 1);
  CHECK_INT(0, rig.end_error);
  CHECK_STR("drained", rig.end_reason);
  CHECK_INT(1, rig.ends);
  close(data);
  rig_finish(&rig);
}

TEST(drains_within_its_time) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, VISITOR("v1"));
  int data = take_data(&rig, "RELAY/1 ACCEPT session=s1 id=v1");
  rig_send(data, "x");
  rig_expect(&rig, data, "x");
  relay_agent_drain(rig.agent, 10000);
  relay_agent_drain(rig.agent, 30); /* only ever shorter */
  relay_agent_drain(rig.agent, 10000);
  AWAIT(&rig, rig.agent_ends == 1);
  CHECK_INT(UV_ECANCELED, rig.last_end.reason);
  CHECK_INT(ECONNRESET, rig_end(&rig, data));
  close(data);
  rig_finish(&rig);
}

static void drain_now(void *data, relay_agent *agent, const char *ticket) {
  (void)data, (void)ticket;
  relay_agent_drain(agent, 10000);
}

/* From the callback that comes before it has its address: then it has none. */
TEST(drains_when_it_is_given_a_ticket) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.options.pool = 1;
  rig.options.on_ticket = drain_now;
  rig_start(&rig);
  rig.control = rig_accept(&rig, rig.listener);
  rig_line(&rig, rig.control);
  rig_send(rig.control, OK_POOL);
  AWAIT(&rig, rig.agent_ends == 1);
  CHECK_STR("drained", rig.end_reason);
  CHECK_INT(0, rig.established);
  CHECK_STR("BYE", rig_line(&rig, rig.control));
  CHECK_INT(-1, accept(rig.listener, NULL, NULL)); /* nor a pool */
  rig_finish(&rig);
}

TEST(drains_nothing_at_all) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig_start(&rig);
  relay_agent_drain(rig.agent, 10000);
  CHECK_INT(0, rig.agent_ends);
  AWAIT(&rig, rig.agent_ends == 1);
  rig_finish(&rig);
}

TEST(closes_at_any_moment) {
  struct agent_rig rig;

  for (int turns = 0; turns < 12; turns++) {
    rig_prepare(&rig);
    rig.options.pool = 2;
    rig.options.host = turns % 2 != 0 ? "localhost" : "127.0.0.1";
    rig_start(&rig);
    for (int i = 0; i < turns; i++)
      rig_turn(&rig);
    rig_finish(&rig);
    CHECK_INT(0, rig.agent_ends);
  }
}

TEST(closes_with_visitors_in_every_phase) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig_start(&rig);
  rig_welcome(&rig, OK_PLAIN);
  rig_send(rig.control, VISITOR("v1"));
  int data = take_data(&rig, "RELAY/1 ACCEPT session=s1 id=v1");
  rig_send(data, "x");
  rig_expect(&rig, data, "x");
  rig.answer = ANSWER_LATER;
  rig_send(rig.control, VISITOR("v2"));
  AWAIT(&rig, rig.visitors == 2);
  rig.answer = ANSWER_ECHO;
  rig_send(rig.control, VISITOR("v3"));
  AWAIT(&rig, rig.visitors == 3);
  rig_finish(&rig);
  CHECK_INT(3, rig.ends); /* each has its end, before the agent's */
  CHECK_INT(ECONNRESET, rig_end(&rig, data));
  close(data);
}

TEST(may_be_closed_from_a_callback) {
  struct agent_rig rig;

  rig_prepare(&rig);
  rig.answer = ANSWER_CLOSE;
  rig.options.pool = 1;
  rig_start(&rig);
  rig_welcome(&rig, OK_POOL);
  int data = take_data(&rig, "RELAY/1 WAIT session=s1 n=1");
  rig_send(data, VISITOR("v1"));
  AWAIT(&rig, rig.visitors == 1);
  rig_finish(&rig);
  CHECK_INT(1, rig.ends);
  close(data);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(asks_for_what_it_wants);
  RUN(refuses_bad_options);
  RUN(does_not_take_a_bad_ok);
  RUN(comes_back_with_its_ticket);
  RUN(asks_for_any_port_when_its_own_is_taken);
  RUN(ends_when_it_is_refused_for_good);
  RUN(heeds_goodbyes);
  RUN(ends_at_the_first_loss_if_told_to);
  RUN(retries_a_relay_that_is_not_there);
  RUN(answers_pings_and_sends_its_own);
  RUN(drains);
  RUN(drains_within_its_time);
  RUN(drains_when_it_is_given_a_ticket);
  RUN(drains_nothing_at_all);
  RUN(closes_at_any_moment);
  RUN(closes_with_visitors_in_every_phase);
  RUN(may_be_closed_from_a_callback);
  return check_report();
}
