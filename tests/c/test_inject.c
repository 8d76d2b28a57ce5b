/* SPDX-License-Identifier: MIT */
/*
 * What happens when a call fails: every call the library makes for a visitor,
 * from the agent's connect to the visitor's end, is made to fail once with each
 * of its likely errors, one run for each. A run is a relay and an agent on one
 * loop, with a visitor and a service of plain sockets around them. Afterwards
 *
 *   - the visitor had all its bytes, or a reset; never an end short of them;
 *   - a second visitor is served as if nothing had been;
 *   - nothing is left: no handle, descriptor, reservation or block of memory.
 *
 * A run in which the n-th call is never made is the last for that function. The
 * runs are spread over several processes.
 *
 *   test_inject [PART-OF-A-NAME]   runs those whose name holds it
 */
#include "inject.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <relay/agent.h>
#include <relay/relay.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "relay/private.h"
#include "tls_certs.h"

#define WORKERS 24 /* most of a run is waiting */
#define PAYLOAD 12001
#define TOKEN "test.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define URGENT_AT 6000 /* this byte is sent as an urgent one */
#define PREAMBLE "PROXY of a kind\r\n"
#define TARGETS 8
#define AWAIT_MS 20000
#define RUN_S 200 /* a run that takes longer hangs */
/* Turns of the loop in one run, at most; it takes about a hundred. More mean
   that something is reported again and again, and nobody sees to it. */
#define TURNS_MAX 4000

enum answer { ANSWER_ECHO, ANSWER_ADDRESS, ANSWER_NAME };

struct scenario {
  const char *name;
  relay_mode mode;
  enum answer answer;
  unsigned pool;
  bool resets;      /* the visitor, half way */
  bool kept;        /* the relay has a directory for its state */
  unsigned secure;  /* 1: with a token; 2: and with certificates, both ways */
  unsigned workers; /* of each half */
};

static const struct scenario scenarios[] = {
    {"splice echo", RELAY_MODE_SPLICE, ANSWER_ECHO, 0, false, false, 0, 0},
    {"splice echo pooled", RELAY_MODE_SPLICE, ANSWER_ECHO, 1, false, false, 0,
     0},
    {"splice address", RELAY_MODE_SPLICE, ANSWER_ADDRESS, 0, false, false, 0,
     0},
    {"splice address pooled", RELAY_MODE_SPLICE, ANSWER_ADDRESS, 1, false,
     false, 0, 0},
    {"splice name reset", RELAY_MODE_SPLICE, ANSWER_NAME, 1, true, false, 0, 0},
    {"copy echo", RELAY_MODE_COPY, ANSWER_ECHO, 0, false, false, 0, 0},
    {"copy echo pooled", RELAY_MODE_COPY, ANSWER_ECHO, 1, false, false, 0, 0},
    {"copy address", RELAY_MODE_COPY, ANSWER_ADDRESS, 0, false, false, 0, 0},
    {"copy address pooled", RELAY_MODE_COPY, ANSWER_ADDRESS, 1, false, false, 0,
     0},
    {"copy name reset", RELAY_MODE_COPY, ANSWER_NAME, 0, true, false, 0, 0},
    {"kept echo", RELAY_MODE_SPLICE, ANSWER_ECHO, 0, false, true, 0, 0},
    {"tls echo pooled", RELAY_MODE_SPLICE, ANSWER_ECHO, 1, false, false, 1, 0},
    {"tls name reset", RELAY_MODE_SPLICE, ANSWER_NAME, 0, true, false, 1, 0},
    {"certificates echo pooled", RELAY_MODE_SPLICE, ANSWER_ECHO, 1, false,
     false, 2, 0},
    {"tls workers", RELAY_MODE_SPLICE, ANSWER_ADDRESS, 0, true, false, 1, 2},
    {"workers", RELAY_MODE_SPLICE, ANSWER_ADDRESS, 1, false, false, 0, 2},
};

#define SCENARIOS (sizeof(scenarios) / sizeof(*scenarios))
/* Beside the visits: making each half, and changing a tokens file. */
#define JOB_RELAY SCENARIOS
#define MAKING (&scenarios[SCENARIOS - 1])
#define LOOP_DESCRIPTORS 4 /* of each worker */
#define JOB_AGENT (SCENARIOS + 1)
#define JOB_KEPT (SCENARIOS + 2) /* a relay that finds an address kept */
#define JOB_TOKENS (SCENARIOS + 3)
#define PLACES (SCENARIOS + 4)
/* A job: one of these, one function, one fault, at every call of a lane, which
   has each so-many-th. */
#define FAULTS_MAX 12
#define LANES 5
#define JOBS (PLACES * INJECT_COUNT * FAULTS_MAX * LANES)

struct shared {
  atomic_uint next;
  atomic_uint runs;
  atomic_uint crashed;
  atomic_bool done[PLACES];
  atomic_bool failed[PLACES];
  atomic_bool fired[INJECT_COUNT];
  atomic_bool realloc_failed;
};

/* A program that comes to the address: sends the pattern, then its FIN. */
struct visitor_peer {
  int fd;
  size_t sent;
  size_t received;
  bool shut;
  bool eof;
  bool cut; /* reset or refused */
};

/* The local service: gives back what it gets. */
struct target_peer {
  int fd;
  size_t preamble;
  size_t received;
  size_t sent;
  bool eof;
};

struct world {
  const struct scenario *scenario;
  uv_loop_t loop;
  relay_t *relay;
  relay_agent *agent;
  int target_listener;
  struct sockaddr_in target_address;
  struct target_peer targets[TARGETS];
  struct visitor_peer visitor;
  unsigned port;
  unsigned established;
  unsigned agent_ends;
  unsigned visits, visit_ends;
  unsigned let_in, opens, closes;
  unsigned agents_let_in, agents_gone;
  unsigned closed;
  unsigned turns;
  char state[32]; /* the directory; "": none */
  bool shown;     /* with certificates */
  const char *tokens;
};

static char files[64]; /* a directory, of each process its own */
static char tokens_path[80];
static struct tls_certs certs;

static struct shared *shared;
static unsigned char payload[PAYLOAD];
static char run_name[160];
static bool run_failed;

static void fail(const char *format, ...) {
  va_list arguments;

  run_failed = true;
  va_start(arguments, format);
  fprintf(stderr, "%s: ", run_name);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
}

/* Fails unless `bytes` are the pattern's from `at` on. */
static void check_bytes(const char *whose, size_t at,
                        const unsigned char *bytes, size_t count) {
  size_t same = 0;

  while (same < count && at + same < PAYLOAD &&
         bytes[same] == payload[at + same])
    same++;
  if (same < count)
    fail("the %s got other bytes, after %zu: %02x, and %zu more", whose,
         at + same, bytes[same], count - same - 1);
}

/* ---- the visitor ------------------------------------------------------ */

static void visitor_close(struct visitor_peer *visitor, bool by_reset) {
  struct linger linger = {1, 0};

  if (visitor->fd < 0)
    return;
  if (by_reset)
    setsockopt(visitor->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
  close(visitor->fd);
  visitor->fd = -1;
}

static void visitor_connect(struct visitor_peer *visitor, unsigned port) {
  struct sockaddr_in to = {.sin_family = AF_INET,
                           .sin_port = htons((uint16_t)port),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

  memset(visitor, 0, sizeof(*visitor));
  visitor->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  visitor->cut = connect(visitor->fd, (struct sockaddr *)&to, sizeof(to)) != 0;
  fcntl(visitor->fd, F_SETFL, O_NONBLOCK);
}

static void visitor_send(struct visitor_peer *visitor, bool resets) {
  size_t at = visitor->sent;
  size_t end = at < URGENT_AT ? URGENT_AT : at == URGENT_AT ? at + 1 : PAYLOAD;
  ssize_t count;

  if (at == PAYLOAD) {
    if (!resets) /* or it would have said that this is all */
      shutdown(visitor->fd, SHUT_WR);
    visitor->shut = true;
    return;
  }
  count = send(visitor->fd, payload + at, end - at,
               MSG_NOSIGNAL | (at == URGENT_AT ? MSG_OOB : 0));
  if (count > 0)
    visitor->sent += (size_t)count;
  else if (errno != EAGAIN)
    visitor->cut = true;
}

static void visitor_receive(struct visitor_peer *visitor) {
  unsigned char bytes[8192];
  ssize_t count = recv(visitor->fd, bytes, sizeof(bytes), 0);

  if (count == 0)
    visitor->eof = true;
  else if (count < 0 && errno != EAGAIN)
    visitor->cut = true;
  if (count <= 0)
    return;
  check_bytes("visitor", visitor->received, bytes, (size_t)count);
  visitor->received += (size_t)count;
}

static bool visitor_ended(const struct visitor_peer *visitor) {
  return visitor->fd < 0 || visitor->eof || visitor->cut;
}

static void visitor_turn(struct world *world) {
  struct visitor_peer *visitor = &world->visitor;
  int i;

  if (visitor_ended(visitor))
    return;
  for (i = 0; i < 3 && !visitor->cut && !visitor->shut; i++)
    visitor_send(visitor, world->scenario->resets);
  /* A reset is told once: whoever has heard of it must not ask again. */
  if (!visitor->cut)
    visitor_receive(visitor);
  if (world->scenario->resets && visitor->received > PAYLOAD / 2)
    visitor_close(visitor, true);
  if (visitor->eof && visitor->received != PAYLOAD)
    fail("the visitor got an end after %zu bytes", visitor->received);
}

/* ---- the service ------------------------------------------------------ */

static void target_close(struct target_peer *target) {
  if (target->fd >= 0)
    close(target->fd);
  target->fd = -1;
}

static void target_accept(struct world *world) {
  int fd =
      accept4(world->target_listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  unsigned i;

  for (i = 0; fd >= 0 && i < TARGETS; i++)
    if (world->targets[i].fd < 0) {
      world->targets[i] = (struct target_peer){.fd = fd};
      return;
    }
  if (fd >= 0) {
    fail("more connections to the service than visitors explain");
    close(fd);
  }
}

/* The bytes after the preamble; how many of `count` they are. */
static size_t skip_preamble(struct target_peer *target,
                            const unsigned char *bytes, size_t count) {
  size_t left = strlen(PREAMBLE) - target->preamble;
  size_t taken = count < left ? count : left;

  if (memcmp(bytes, PREAMBLE + target->preamble, taken) != 0)
    fail("the service got another preamble, after %zu: %02x", target->preamble,
         bytes[0]);
  target->preamble += taken;
  return count - taken;
}

static void target_receive(struct world *world, struct target_peer *target) {
  unsigned char bytes[8192];
  ssize_t count = recv(target->fd, bytes, sizeof(bytes), 0);
  size_t kept;

  if (count < 0 && errno != EAGAIN) {
    target_close(target);
    return;
  }
  if (count == 0) {
    target->eof = true;
    if (world->scenario->resets || target->received != PAYLOAD)
      fail("the service got an end after %zu bytes", target->received);
    return;
  }
  if (count < 0)
    return;
  kept = skip_preamble(target, bytes, (size_t)count);
  check_bytes("service", target->received, bytes + count - kept, kept);
  target->received += kept;
}

static void target_turn(struct world *world, struct target_peer *target) {
  ssize_t count;

  if (target->fd >= 0 && !target->eof)
    target_receive(world, target);
  if (target->fd < 0)
    return;
  count = send(target->fd, payload + target->sent,
               target->received - target->sent, MSG_NOSIGNAL);
  if (count > 0)
    target->sent += (size_t)count;
  if ((count < 0 && errno != EAGAIN) ||
      (target->eof && target->sent == target->received))
    target_close(target);
}

static void target_open(struct world *world) {
  socklen_t length = sizeof(world->target_address);
  unsigned i;

  world->target_address = (struct sockaddr_in){
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  world->target_listener =
      socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (bind(world->target_listener, (struct sockaddr *)&world->target_address,
           length) != 0 ||
      listen(world->target_listener, 16) != 0 ||
      getsockname(world->target_listener,
                  (struct sockaddr *)&world->target_address, &length) != 0)
    fail("no service");
  for (i = 0; i < TARGETS; i++)
    world->targets[i].fd = -1;
}

/* ---- the two halves --------------------------------------------------- */

static int on_agent_asked(void *data, uint64_t call,
                          const relay_agent_info *agent,
                          const relay_credentials *credentials,
                          relay_verdict *verdict) {
  struct world *world = data;

  (void)call, (void)agent, (void)credentials, (void)verdict;
  world->agents_let_in++;
  return 0;
}

static void on_agent_gone(void *data, const relay_agent_info *agent,
                          int reason) {
  struct world *world = data;

  (void)agent, (void)reason;
  world->agents_gone++;
}

static int on_visitor_asked(void *data, uint64_t call,
                            const relay_conn_info *conn,
                            const relay_agent_info *agents, size_t agent_count,
                            relay_verdict *verdict) {
  struct world *world = data;

  (void)call, (void)conn, (void)agents, (void)agent_count, (void)verdict;
  world->let_in++;
  return 0;
}

static void on_open(void *data, const relay_conn_info *conn) {
  struct world *world = data;

  (void)conn;
  world->opens++;
}

static void on_close(void *data, const relay_conn_info *conn) {
  struct world *world = data;

  (void)conn;
  world->closes++;
}

static void on_established(void *data, relay_agent *agent, const char *host,
                           unsigned port, int fresh) {
  struct world *world = data;

  (void)agent, (void)host, (void)fresh;
  world->port = port;
  world->established++;
}

static void on_visitor(void *data, relay_agent *agent,
                       const relay_visitor_info *visitor) {
  struct world *world = data;
  unsigned port = ntohs(world->target_address.sin_port);

  world->visits++;
  if (world->scenario->answer == ANSWER_ECHO)
    relay_agent_serve_echo(agent, visitor->id);
  else if (world->scenario->answer == ANSWER_ADDRESS)
    relay_agent_serve_address(
        agent, visitor->id, (const struct sockaddr *)&world->target_address,
        sizeof(world->target_address), PREAMBLE, strlen(PREAMBLE));
  else
    relay_agent_serve_name(agent, visitor->id, "127.0.0.1", port, PREAMBLE,
                           strlen(PREAMBLE));
}

static void on_visitor_end(void *data, relay_agent *agent,
                           const relay_visitor_end *end) {
  struct world *world = data;

  (void)agent, (void)end;
  world->visit_ends++;
}

static void on_end(void *data, relay_agent *agent, int error,
                   const char *reason) {
  struct world *world = data;

  (void)agent;
  world->agent_ends++;
  fail("the agent gave up: %s (%s)", reason, relay_error_name(error));
}

static void on_log(void *data, const relay_log_record *record) {
  char line[1024];

  relay_log_format(record, RELAY_LOG_TEXT, line, sizeof(line));
  fprintf(stderr, "%s: %s\n", (const char *)data, line);
}

/* ---- state ------------------------------------------------------------ */

/* A directory; `kept`: with two addresses in it, one of which cannot be had. */
static void state_open(struct world *world, bool kept) {
  static const char line[] = "OK host=127.0.0.1 port=20000 resume=a owner=b "
                             "at=127.0.0.1 sum=4eff11fb056b526b\n";
  char path[sizeof(world->state) + 40];
  int i, fd;

  memcpy(world->state, "/tmp/relay-inject.XXXXXX", 25);
  if (mkdtemp(world->state) == NULL)
    fail("no directory");
  for (i = 0; kept && i < 2; i++) {
    snprintf(path, sizeof(path), "%s/lease-%032d", world->state, i);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (write(fd, line, sizeof(line) - 1) < 0)
      fail("no lease");
    close(fd);
  }
}

static void state_close(struct world *world) {
  DIR *directory = opendir(world->state);
  const struct dirent *entry;

  while ((entry = readdir(directory)) != NULL)
    unlinkat(dirfd(directory), entry->d_name, 0);
  closedir(directory);
  if (rmdir(world->state) != 0)
    fail("the directory is not empty");
}

/* ---- the halves ------------------------------------------------------- */

static int make_relay(struct world *world) {
  relay_policy policy = {.size = sizeof(policy),
                         .data = world,
                         .auth =
                             world->scenario->secure ? on_agent_asked : NULL,
                         .visitor = on_visitor_asked,
                         .open = on_open,
                         .close = on_close,
                         .agent_gone = on_agent_gone};
  relay_options options;

  relay_options_init(&options, sizeof(options));
  options.listen_host = "127.0.0.1";
  options.mode = world->scenario->mode;
  options.policy = &policy;
  options.state = world->state[0] != '\0' ? world->state : NULL;
  options.handshake_ms = 300;
  options.workers = world->scenario->workers;
  options.pairing_ms = 400;
  options.heartbeat_ms = 60;
  options.dead_ms = 400;
  options.grace_ms = 300;
  options.park_ms = 600;
  options.fin_timeout_ms = 600;
  options.idle_ms = 900;
  options.tokens = world->tokens;
  if (world->shown) {
    options.tls_cert = options.tls_client_ca = certs.cert;
    options.tls_key = certs.key;
  }
  options.penalties = RELAY_PENALTIES_OFF; /* a fault is not its own doing */
  if (getenv("RELAY_TEST_LOG") != NULL) {
    options.log = on_log;
    options.log_data = "relay";
    options.log_level = RELAY_LOG_DEBUG;
  }
  return relay_new(&world->relay, &world->loop, &options);
}

static int make_agent(struct world *world) {
  relay_agent_options options;

  relay_agent_options_init(&options, sizeof(options));
  options.host = "127.0.0.1";
  options.port = world->relay != NULL ? relay_port(world->relay) : 9;
  options.name = "test";
  options.mode = world->scenario->mode;
  options.pool = world->scenario->pool;
  options.workers = world->scenario->workers;
  options.connect_ms = 300;
  options.heartbeat_ms = 1000;
  options.dead_ms = 400;
  options.backoff_min_ms = 1;
  options.backoff_max_ms = 8;
  options.fin_timeout_ms = 600;
  options.idle_ms = 900;
  options.visit_ms = 400;
  options.token = world->scenario->secure ? TOKEN : NULL;
  if (world->shown) {
    options.tls_cert = options.tls_ca = certs.cert;
    options.tls_key = certs.key;
  }
  options.data = world;
  options.on_established = on_established;
  options.on_visitor = on_visitor;
  options.on_visitor_end = on_visitor_end;
  options.on_end = on_end;
  if (getenv("RELAY_TEST_LOG") != NULL) {
    options.log = on_log;
    options.log_data = "agent";
  }
  return relay_agent_new(&world->agent, &world->loop, &options);
}

/* ---- one run ---------------------------------------------------------- */

/* Waits for anybody to have something to do. */
static void wait_for_events(const struct world *world) {
  const struct visitor_peer *visitor = &world->visitor;
  int timeout = uv_backend_timeout(&world->loop);
  struct pollfd waits[TARGETS + 3];
  unsigned i, count = 0;

  waits[count++] = (struct pollfd){uv_backend_fd(&world->loop), POLLIN, 0};
  waits[count++] = (struct pollfd){world->target_listener, POLLIN, 0};
  if (!visitor_ended(visitor))
    waits[count++] = (struct pollfd){
        visitor->fd, visitor->shut ? POLLIN : POLLIN | POLLOUT, 0};
  for (i = 0; i < TARGETS; i++)
    if (world->targets[i].fd >= 0)
      waits[count++] = (struct pollfd){world->targets[i].fd, POLLIN, 0};
  poll(waits, count, timeout >= 0 && timeout < 50 ? timeout : 50);
}

static void turn(struct world *world) {
  unsigned i;

  if (world->turns++ == TURNS_MAX)
    fail("spins");
  wait_for_events(world);
  inject_enter();
  uv_run(&world->loop, UV_RUN_NOWAIT);
  inject_leave();
  visitor_turn(world);
  target_accept(world);
  for (i = 0; i < TARGETS; i++)
    target_turn(world, &world->targets[i]);
}

/* Turns until `so`; a failure when that does not come. */
#define AWAIT(world, so)                                                       \
  do {                                                                         \
    uint64_t until_ = uv_hrtime() + AWAIT_MS * UINT64_C(1000000);              \
    while (!(so) && uv_hrtime() < until_)                                      \
      turn(world);                                                             \
    if (!(so))                                                                 \
      fail("did not come: %s", #so);                                           \
  } while (0)

/* The books of a relay at rest: each descriptor is accounted for. */
static bool is_at_rest(const struct world *world) {
  relay_stats stats = {.size = sizeof(stats)};

  relay_get_stats(world->relay, &stats);
  return stats.visitors == 0 && stats.pairs == 0 && stats.parked == 0 &&
         stats.unproven == 0 && stats.agents == 1 && stats.leases == 1 &&
         stats.waiting == world->scenario->pool &&
         stats.fds == 3 + world->scenario->kept + stats.waiting +
                          2 * stats.pipes +
                          LOOP_DESCRIPTORS * world->scenario->workers &&
         world->relay->plane.fds.reserved == 0 &&
         relay_agent_visitors(world->agent) == 0 &&
         world->closes == world->let_in && world->opens <= world->closes &&
         world->visit_ends == world->visits;
}

static bool is_pooled(const struct world *world) {
  relay_stats stats = {.size = sizeof(stats)};

  relay_get_stats(world->relay, &stats);
  return stats.waiting == world->scenario->pool;
}

/* Both halves have let go of every visitor. */
static bool is_left(const struct world *world) {
  relay_stats stats = {.size = sizeof(stats)};

  relay_get_stats(world->relay, &stats);
  return stats.visitors == 0 && relay_agent_visitors(world->agent) == 0;
}

/* With the fault to come: its end may be anything but a false one. */
static void visit(struct world *world) {
  AWAIT(world, world->established > 0);
  AWAIT(world, is_pooled(world));
  visitor_connect(&world->visitor, world->port);
  AWAIT(world, visitor_ended(&world->visitor));
  visitor_close(&world->visitor, true);
  AWAIT(world, is_left(world));
}

/* After it: as if nothing had been. A machine that stalls may cost a session,
   so it has three tries, but a false end fails in any of them. */
static void visit_again(struct world *world) {
  bool served = false;
  int tries;

  for (tries = 0; tries < 3 && !served && !run_failed; tries++) {
    AWAIT(world, is_at_rest(world));
    visitor_connect(&world->visitor, world->port);
    AWAIT(world, visitor_ended(&world->visitor));
    served =
        world->scenario->resets ? world->visitor.fd < 0 : world->visitor.eof;
    visitor_close(&world->visitor, true);
  }
  if (!served)
    fail("a second visitor was not served");
  AWAIT(world, is_at_rest(world));
}

static void on_closed(void *data) {
  struct world *world = data;

  world->closed++;
}

static int count_descriptors(void) {
  DIR *directory = opendir("/proc/self/fd");
  int count = 0;

  while (readdir(directory) != NULL)
    count++;
  closedir(directory);
  return count;
}

/* Closes what there is, and looks for what is left. */
static void finish(struct world *world, bool agent_first, int descriptors) {
  unsigned halves = (world->relay != NULL) + (world->agent != NULL);
  unsigned i;

  if (agent_first && world->agent != NULL)
    relay_agent_close(world->agent, on_closed, world);
  if (world->relay != NULL)
    relay_close(world->relay, on_closed, world);
  if (!agent_first && world->agent != NULL)
    relay_agent_close(world->agent, on_closed, world);
  visitor_close(&world->visitor, true);
  if (uv_run(&world->loop, UV_RUN_DEFAULT) != 0)
    fail("the loop still has handles");
  if (world->closed != halves)
    fail("%u of %u halves said that they closed", world->closed, halves);
  if (uv_loop_close(&world->loop) != 0)
    fail("the loop does not close");
  for (i = 0; i < TARGETS; i++)
    target_close(&world->targets[i]);
  close(world->target_listener);
  if (world->state[0] != '\0')
    state_close(world);
  if (count_descriptors() != descriptors)
    fail("%d descriptors more than before", count_descriptors() - descriptors);
  if (inject_blocks != 0)
    fail("%ld blocks of memory are left", inject_blocks);
  inject_blocks = 0;
  if (world->scenario->secure && world->agents_let_in != world->agents_gone)
    fail("%u of %u agents are gone", world->agents_gone, world->agents_let_in);
  if (world->closes != world->let_in || world->visit_ends != world->visits)
    fail("%u of %u visitors closed, %u of %u visits", world->closes,
         world->let_in, world->visit_ends, world->visits);
}

/* With the token that agents have, and another. */
static void write_tokens(void) {
  uint8_t key[SECRET_SIZE] = {0};
  char id[TOKEN_ID_MAX + 1], text[256], *at = text;
  int fd = open(tokens_path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

  relay__token_key(TOKEN, id, key);
  at += snprintf(at, 16, "test key=");
  for (size_t i = 0; i < sizeof(key); i++)
    at += snprintf(at, 3, "%02x", key[i]);
  at += snprintf(at, 128, "\nold key=%064d note=a\n", 0);
  if (fd < 0 || write(fd, text, (size_t)(at - text)) != at - text)
    fail("no tokens file to begin with");
  close(fd);
}

static void open_world(struct world *world, const struct scenario *scenario) {
  memset(world, 0, sizeof(*world));
  world->scenario = scenario;
  world->shown = scenario->secure == 2;
  if (scenario->secure) {
    write_tokens();
    world->tokens = tokens_path;
  }
  world->visitor.fd = -1;
  uv_loop_init(&world->loop);
  target_open(world);
}

/* False when the call to fail was never made. */
static bool run_visit(const struct scenario *scenario,
                      enum inject_function function, unsigned nth, int fault) {
  int descriptors = count_descriptors();
  struct world world;
  bool fired;
  int err;

  open_world(&world, scenario);
  if (scenario->kept)
    state_open(&world, false);
  err = make_relay(&world);
  if (err == 0)
    err = make_agent(&world);
  inject_arm(function, nth, fault);
  if (err == 0)
    visit(&world);
  else
    fail("nothing to begin with: %s", relay_strerror(err));
  fired = inject_disarm();
  if (fired && !run_failed)
    visit_again(&world);
  finish(&world, nth % 2 == 0, descriptors);
  return fired;
}

/* ---- tokens ----------------------------------------------------------- */

struct seen {
  unsigned count;
  bool has_new;
  bool old_is_revoked;
};

static int look(void *data, const relay_token *token) {
  struct seen *seen = data;

  seen->count++;
  if (strcmp(token->id, "new") == 0)
    seen->has_new = true;
  else if (strcmp(token->id, "old") == 0)
    seen->old_is_revoked = token->revoked != 0;
  return 0;
}

static unsigned count_files(void) {
  DIR *found = opendir(files);
  unsigned count = 0;

  while (readdir(found) != NULL)
    count++;
  closedir(found);
  return count - 2; /* itself and its parent */
}

/* A token is added and one is revoked: each is done, or said not to be. */
static bool run_tokens(enum inject_function function, unsigned nth, int fault) {
  relay_token token = {.size = sizeof(token), .id = "new"};
  char text[RELAY_TOKEN_SIZE], error[256];
  int descriptors = count_descriptors(), added, revoked;
  struct seen seen = {0, false, false};
  bool fired;

  write_tokens();
  inject_arm(function, nth, fault);
  inject_enter();
  added = relay_token_new(tokens_path, &token, text, sizeof(text), error,
                          sizeof(error));
  revoked = relay_token_revoke(tokens_path, "old", error, sizeof(error));
  inject_leave();
  fired = inject_disarm();
  if (!fired && (added != 0 || revoked != 0))
    fail("without a fault: %d, %d", added, revoked);
  if (relay_token_each(tokens_path, look, &seen, error, sizeof(error)) != 0)
    fail("the file is bad: %s", error);
  if (seen.has_new != (added == 0) || seen.old_is_revoked != (revoked == 0) ||
      seen.count != (seen.has_new ? 3 : 2))
    fail("said %d and %d, and it is not so", added, revoked);
  if (count_files() != 1)
    fail("%u files beside it", count_files() - 1);
  if (count_descriptors() != descriptors)
    fail("%d descriptors more than before", count_descriptors() - descriptors);
  if (inject_blocks != 0)
    fail("%ld blocks of memory are left", inject_blocks);
  inject_blocks = 0;
  return fired;
}

/* The same for making a half: it fails, or there is a half. */
static bool run_new(size_t place, enum inject_function function, unsigned nth,
                    int fault) {
  int descriptors = count_descriptors();
  struct world world;
  bool fired;
  int err;

  open_world(&world, MAKING);
  if (place == JOB_KEPT)
    state_open(&world, true);
  write_tokens();
  world.tokens = tokens_path;
  world.shown = true;
  inject_arm(function, nth, fault);
  inject_enter();
  err = place == JOB_AGENT ? make_agent(&world) : make_relay(&world);
  /* Whether that works changes nothing else. */
  if (err == 0 && place != JOB_AGENT) {
    relay_reload_tokens(world.relay, NULL, 0);
    relay_reload_certificates(world.relay, NULL, 0);
  }
  inject_leave();
  fired = inject_disarm();
  if (err > 0 || (err == 0) != (world.relay != NULL || world.agent != NULL))
    fail("made, or not: %d", err);
  if (!fired && err != 0)
    fail("not made, without a fault: %s", relay_strerror(err));
  finish(&world, true, descriptors);
  return fired;
}

/* ---- all runs --------------------------------------------------------- */

static void on_alarm(int number) {
  static const char hangs[] = ": hangs\n";

  (void)number;
  if (write(2, run_name, strlen(run_name)) < 0 ||
      write(2, hangs, sizeof(hangs) - 1) < 0)
    _exit(4);
  _exit(3);
}

static const char *place_name(size_t place) {
  return place == JOB_RELAY    ? "relay_new"
         : place == JOB_AGENT  ? "relay_agent_new"
         : place == JOB_KEPT   ? "relay_new with state"
         : place == JOB_TOKENS ? "relay_token_new"
                               : scenarios[place].name;
}

static bool run(size_t place, enum inject_function function, unsigned nth,
                int fault) {
  snprintf(run_name, sizeof(run_name), "%s: %s %u %s", place_name(place),
           inject_name(function), nth, inject_fault_name(fault));
  alarm(RUN_S);
  atomic_fetch_add(&shared->runs, 1);
  if (place == JOB_TOKENS)
    return run_tokens(function, nth, fault);
  return place < SCENARIOS ? run_visit(&scenarios[place], function, nth, fault)
                           : run_new(place, function, nth, fault);
}

/* The job's fault; 0 when the function has no so many, or is not wanted. */
static int find_fault(size_t place, enum inject_function function,
                      unsigned index, const char *filter) {
  const int *faults = inject_faults(function);
  char name[128];
  unsigned i;

  snprintf(name, sizeof(name), "%s: %s", place_name(place),
           inject_name(function));
  if (filter != NULL && strstr(name, filter) == NULL)
    return 0;
  for (i = 0; i < index && faults[i] != 0; i++)
    ;
  return faults[i];
}

/* Certificates take their time, and OpenSSL thousands of allocations, all of
   which test_tls_memory has as well: here each of so many calls fails. */
static unsigned find_step(size_t place, enum inject_function function) {
  bool visits = place < SCENARIOS;

  if (getenv("RELAY_TEST_FULL") != NULL ||
      (visits ? scenarios[place].secure != 2 : place == JOB_TOKENS))
    return 1;
  if (function == INJECT_openssl)
    return 37;
  return visits ? 4 : 1;
}

static void run_job(unsigned job, const char *filter) {
  unsigned kind = job / LANES;
  size_t place = kind / FAULTS_MAX / INJECT_COUNT;
  enum inject_function function = kind / FAULTS_MAX % INJECT_COUNT;
  int fault = find_fault(place, function, kind % FAULTS_MAX, filter);
  unsigned step = find_step(place, function), nth = 1 + job % LANES * step;

  if (fault == 0)
    return;
  run_failed = false;
  atomic_store(&shared->done[place], true);
  while (!run_failed && run(place, function, nth, fault)) {
    atomic_store(&shared->fired[function], true);
    nth += LANES * step;
  }
  if (inject_reallocs_failed != 0)
    atomic_store(&shared->realloc_failed, true);
  if (run_failed)
    atomic_store(&shared->failed[place], true);
}

/* Tens of thousands of connections stay in TIME_WAIT behind all this: in a
   network of its own, where that may be had, nobody else misses their ports. */
static void leave_network(void) {
  struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  int fd;

  if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
    return;
  fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &up) != 0)
    fail("a network without loopback");
  close(fd);
}

/* What it does once in a process and fails at, it never does again. */
static void warm_openssl(void) {
  struct tls_context *contexts[2] = {NULL};
  int i;

  for (i = 0; i < 2; i++) {
    if (relay__tls_context_new(&contexts[i], i == 0) != 0)
      fail("no TLS to begin with");
    relay__tls_context_free(contexts[i]);
  }
}

static int work(const char *filter) {
  uv_loop_t loop;
  unsigned job;

  signal(SIGALRM, on_alarm);
  leave_network();
  /* What libuv opens once per process must not look like the first run's. */
  uv_loop_init(&loop);
  uv_loop_close(&loop);
  warm_openssl();
  snprintf(files, sizeof(files), "/tmp/test_inject.XXXXXX");
  if (mkdtemp(files) == NULL)
    fail("no directory for files");
  snprintf(tokens_path, sizeof(tokens_path), "%s/tokens", files);
  if (!tls_certs_open(&certs))
    fail("no certificates");
  run_visit(&scenarios[SCENARIOS - 1], 0, 0, 0); /* as warm_openssl */
  while ((job = atomic_fetch_add(&shared->next, 1)) < JOBS)
    run_job(job, filter);
  unlink(tokens_path);
  rmdir(files);
  tls_certs_close(&certs);
  return 0;
}

static void spawn(const char *filter) {
  fflush(stdout);
  if (fork() == 0)
    exit(work(filter));
}

/* Each place is a test; that every function was called in one is another. */
static int report(const char *filter) {
  unsigned passed = 0, failed = atomic_load(&shared->crashed), i;
  bool all = true;

  for (i = 0; i < PLACES; i++)
    if (atomic_load(&shared->failed[i]))
      failed++;
    else if (atomic_load(&shared->done[i]))
      passed++;
  for (i = 0; i < INJECT_COUNT && filter == NULL; i++)
    if (!atomic_load(&shared->fired[i])) {
      fprintf(stderr, "%s was never called\n", inject_name(i));
      all = false;
    }
  if (filter == NULL && !atomic_load(&shared->realloc_failed)) {
    fprintf(stderr, "realloc never failed\n");
    all = false;
  }
  if (filter == NULL && all)
    passed++;
  else if (!all)
    failed++;
  printf("%u runs\n", atomic_load(&shared->runs));
  printf("%u passed, %u failed\n", passed, failed);
  return failed != 0 || passed == 0;
}

int main(int argc, char **argv) {
  struct rlimit limit = {512, 512};
  const char *filter = argc > 1 ? argv[1] : NULL;
  int status;
  unsigned i;

  signal(SIGPIPE, SIG_IGN);
  if (!inject_openssl())
    return 1;
  setrlimit(RLIMIT_NOFILE, &limit); /* small tables make short runs */
  for (i = 0; i < PAYLOAD; i++)
    payload[i] = (unsigned char)(i * 2654435761u >> 13);
  shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  for (i = 0; i < WORKERS; i++)
    spawn(filter);
  while (wait(&status) > 0) {
    if (status == 0)
      continue;
    fprintf(stderr, "a process ended with status %d\n", status);
    atomic_fetch_add(&shared->crashed, 1);
    if (atomic_load(&shared->next) < JOBS)
      spawn(filter);
  }
  return report(filter);
}
