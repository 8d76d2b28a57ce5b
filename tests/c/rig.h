/* SPDX-License-Identifier: MIT */
/*
 * A pair under test: a loop, a plane, and two real TCP peers on loopback whose
 * other ends are joined by the pair. Everything runs on one thread; the peers
 * are plain nonblocking sockets. Or two pairs in a row with TLS between them,
 * as a relay and an agent have it:
 *
 *   peer ── pair ══TLS══ pair ── peer
 *
 * With rig_workers the pairs are moved to threads of their own, and only they.
 */
#ifndef RELAY_TESTS_RIG_H
#define RELAY_TESTS_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "flow/crew.h"
#include "net/tls.h"

struct peer {
  int fd;
  uint64_t sent; /* bytes of the pattern */
  uint64_t received;
  uint64_t seed;
  bool shut;
  bool closed;
  bool eof;
  bool reset;
};

static unsigned rig_workers;

struct rig {
  uv_loop_t loop;
  struct plane plane;
  struct crew crew;
  struct pair *pair;
  struct pair *second; /* behind TLS; NULL without */
  struct tls_context *client, *server;
  struct peer peers[2];
  int pairs; /* started */
  int ends;  /* times on_end ran */
  int reason;
  uint64_t bytes_in, bytes_out;
};

static inline unsigned char pattern(uint64_t seed, uint64_t at) {
  uint64_t x = (at >> 3) * 0x9e3779b97f4a7c15ull + seed;

  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 32;
  return (unsigned char)(x >> (at & 7) * 8);
}

static inline void on_rig_end(struct pair *pair, int reason) {
  struct rig *rig = pair->owner;

  rig->ends++;
  if (pair == rig->second) {
    rig->second = NULL;
    return;
  }
  rig->reason = reason;
  rig->bytes_in = relay__pair_bytes_in(pair);
  rig->bytes_out = relay__pair_bytes_out(pair);
  rig->pair = NULL;
}

/* All pairs have ended. */
static inline bool rig_ended(const struct rig *rig) {
  return rig->ends == rig->pairs;
}

/* A connected TCP pair: one end for a peer, the other, tuned, for a stream. */
static inline bool rig_connect(struct rig *rig, struct peer *peer,
                               struct stream **stream, int buffer) {
  struct sockaddr_in at = {.sin_family = AF_INET,
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(at);
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  int on = 1, ours;

  relay__stream_tune(&rig->plane, listener);
  peer->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (buffer != 0) {
    setsockopt(peer->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    setsockopt(peer->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
  }
  setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (bind(listener, (struct sockaddr *)&at, length) != 0 ||
      listen(listener, 1) != 0 ||
      getsockname(listener, (struct sockaddr *)&at, &length) != 0 ||
      connect(peer->fd, (struct sockaddr *)&at, length) != 0 ||
      (ours = accept(listener, NULL, NULL)) < 0)
    return CHECK(!"sockets");
  close(listener);
  fcntl(peer->fd, F_SETFL, O_NONBLOCK);
  return CHECK_INT(0, relay__stream_open(stream, &rig->plane, ours));
}

static inline void rig_init(struct rig *rig, relay_mode mode) {
  memset(rig, 0, sizeof(*rig));
  signal(SIGPIPE, SIG_IGN);
  CHECK_INT(0, uv_loop_init(&rig->loop));
  CHECK_INT(0, relay__plane_init(&rig->plane, &rig->loop, mode, 0));
  CHECK_INT(0, relay__crew_init(&rig->crew, &rig->plane, rig_workers));
  rig->peers[0].seed = 17;
  rig->peers[1].seed = 4711;
  rig->peers[1].fd = -1;
}

static inline void rig_open(struct rig *rig, relay_mode mode, bool echo,
                            const struct pair_limits *limits, int buffer) {
  static const struct pair_limits none;
  struct stream *a = NULL, *b = NULL;

  rig_init(rig, mode);
  rig->peers[1].closed = echo;
  rig_connect(rig, &rig->peers[0], &a, buffer);
  if (!echo)
    rig_connect(rig, &rig->peers[1], &b, buffer);
  rig->pairs = 1;
  CHECK_INT(0, relay__crew_start(&rig->pair, &rig->crew, a, b,
                                 limits ? limits : &none, on_rig_end, rig));
}

/* ---- with TLS in the middle ------------------------------------------- */

static const uint8_t rig_key[SECRET_SIZE] = "a key that both of them know...";

static inline void on_rig_shake(struct stream *stream, int events) {
  int *status = stream->owner;

  (void)events;
  *status = relay__tls_handshake(stream);
  if (*status == TLS_IDENTIFIED) {
    CHECK_STR("t/test", relay__tls_identity(stream));
    relay__tls_settle(stream, rig_key);
    *status = relay__tls_handshake(stream);
  }
  relay__stream_watch(stream, *status == TLS_DONE ? 0 : UV_READABLE);
}

static inline void rig_turn(struct rig *rig);

/* Has the two ends of a connection prove the key to each other. */
static inline void rig_shake(struct rig *rig, struct stream *client,
                             struct stream *server) {
  int client_status = 0, server_status = 0, turns;

  if (rig->client == NULL) {
    CHECK_INT(0, relay__tls_context_new(&rig->client, false));
    CHECK_INT(0, relay__tls_context_new(&rig->server, true));
  }
  CHECK_INT(0, relay__tls_connect(client, rig->client, "t/test", rig_key));
  CHECK_INT(0, relay__tls_accept(server, rig->server));
  relay__stream_own(client, on_rig_shake, &client_status);
  relay__stream_own(server, on_rig_shake, &server_status);
  CHECK_INT(0, relay__stream_watch(server, UV_READABLE));
  on_rig_shake(client, 0);
  for (turns = 0; turns < 1000 && (client_status | server_status) == 0; turns++)
    rig_turn(rig);
  for (; turns < 1000 && (client_status == 0 || server_status == 0); turns++)
    rig_turn(rig);
  CHECK_INT(TLS_DONE, client_status);
  CHECK_INT(TLS_DONE, server_status);
}

static inline void rig_open_secure(struct rig *rig, relay_mode mode, bool echo,
                                   const struct pair_limits *limits,
                                   int buffer) {
  static const struct pair_limits none;
  struct stream *streams[4] = {NULL};
  struct peer middle = {0};

  rig_init(rig, mode);
  rig->peers[1].closed = echo;
  rig_connect(rig, &rig->peers[0], &streams[0], buffer);
  rig_connect(rig, &middle, &streams[1], 0);
  CHECK_INT(0, relay__stream_tune(&rig->plane, middle.fd));
  CHECK_INT(0, relay__stream_open(&streams[2], &rig->plane, middle.fd));
  if (!echo)
    rig_connect(rig, &rig->peers[1], &streams[3], buffer);
  rig_shake(rig, streams[2], streams[1]);
  rig->pairs = 2;
  CHECK_INT(0, relay__crew_start(&rig->pair, &rig->crew, streams[0], streams[1],
                                 limits ? limits : &none, on_rig_end, rig));
  CHECK_INT(0, relay__crew_start(&rig->second, &rig->crew, streams[2],
                                 streams[3], &none, on_rig_end, rig));
}

/* ---- the peers -------------------------------------------------------- */

/* What a send came to. A reset is told once: a read would see an end then. */
static inline size_t peer_sent(struct peer *peer, ssize_t n) {
  if (n > 0)
    peer->sent += (uint64_t)n;
  else if (n < 0 && errno != EAGAIN)
    peer->reset = true;
  return n > 0 ? (size_t)n : 0;
}

static inline size_t peer_send_urgent(struct peer *peer) {
  unsigned char byte = pattern(peer->seed, peer->sent);

  return peer_sent(
      peer, send(peer->fd, &byte, 1, MSG_OOB | MSG_NOSIGNAL | MSG_DONTWAIT));
}

/* Sends up to `count` more bytes of the pattern; how many were taken. */
static inline size_t peer_send(struct peer *peer, size_t count) {
  static unsigned char bytes[256 * 1024];
  size_t i;
  ssize_t n;

  if (count > sizeof(bytes))
    count = sizeof(bytes);
  for (i = 0; i < count; i++)
    bytes[i] = pattern(peer->seed, peer->sent + i);
  n = send(peer->fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
  return peer_sent(peer, n);
}

/* Reads what is there, at most `count`, and compares it with what the peer of
   `seed` sends. */
static inline size_t peer_receive(struct peer *peer, uint64_t seed,
                                  size_t count) {
  static unsigned char bytes[256 * 1024];
  ssize_t i, n;

  if (peer->closed || peer->eof || peer->reset)
    return 0;
  if (count > sizeof(bytes))
    count = sizeof(bytes);
  n = recv(peer->fd, bytes, count, MSG_DONTWAIT);
  if (n == 0)
    peer->eof = true;
  else if (n < 0 && errno != EAGAIN)
    peer->reset = true;
  for (i = 0; i < n; i++)
    if (bytes[i] != pattern(seed, peer->received + (uint64_t)i)) {
      CHECK(!"the right byte");
      break;
    }
  if (n > 0)
    peer->received += (uint64_t)n;
  return n > 0 ? (size_t)n : 0;
}

static inline void peer_shut(struct peer *peer) {
  shutdown(peer->fd, SHUT_WR);
  peer->shut = true;
}

static inline void peer_reset(struct peer *peer) {
  struct linger linger = {1, 0};

  setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
  close(peer->fd);
  peer->closed = true;
}

/* Unacknowledged bytes of the peer's own. */
static inline int peer_unsent(struct peer *peer) {
  int unsent = 0;

  ioctl(peer->fd, TIOCOUTQ, &unsent);
  return unsent;
}

/* One turn of the loop, waiting at most a millisecond for something; with
   workers less, as nothing tells of what they have done. */
static inline void rig_turn(struct rig *rig) {
  struct timespec most = {0, rig_workers != 0 ? 100000 : 1000000};

  uv_run(&rig->loop, UV_RUN_NOWAIT);
  if (uv_backend_timeout(&rig->loop) == 0)
    most.tv_nsec = 0;
  if (rig->pair != NULL || rig->plane.handles != 0) {
    struct pollfd wait = {uv_backend_fd(&rig->loop), POLLIN, 0};

    ppoll(&wait, 1, &most, NULL);
  }
}

/* ---- what hangs ------------------------------------------------------- */

static inline void tell_pair(const struct pair *pair) {
  unsigned i;

  for (i = 0; pair != NULL && !pair->ended && i < pair->flow_count; i++) {
    const struct flow *flow = &pair->flows[i];
    struct stream *stream = pair->streams[i];
    int unread = 0;

    ioctl(stream->fd, FIONREAD, &unread);
    fprintf(stderr,
            "  stream %u: watched %d, reset %d, urgent %d, unsent %zu, unread "
            "%d\n  flow %u: phase %d, blocked %d, held %zu\n",
            i, stream->watched, stream->reset, stream->urgent,
            relay__stream_unsent(stream), unread, i, flow->phase, flow->blocked,
            flow->hold != NULL ? flow->hold->length : 0);
  }
}

/* A hang that is seen once in a thousand runs has to tell by itself what it
   was: the pair's, or the kernel's between two sockets. */
static inline void rig_tell(const struct rig *rig) {
  unsigned i;

  for (i = 0; i < 2; i++) {
    const struct peer *peer = &rig->peers[i];
    int unsent = 0, unread = 0;

    if (!peer->closed) {
      ioctl(peer->fd, TIOCOUTQ, &unsent);
      ioctl(peer->fd, FIONREAD, &unread);
    }
    fprintf(stderr,
            "  peer %u: sent %llu, received %llu, shut %d, closed %d, eof %d, "
            "reset %d, unsent %d, unread %d\n",
            i, (unsigned long long)peer->sent,
            (unsigned long long)peer->received, peer->shut, peer->closed,
            peer->eof, peer->reset, unsent, unread);
  }
  tell_pair(rig->pair);
  tell_pair(rig->second);
}

/* Turns until `so`, or half a minute has passed. */
#define RIG_UNTIL(rig, so)                                                     \
  do {                                                                         \
    uint64_t until_ = uv_hrtime() + 30000000000ull;                            \
    while (!(so) && uv_hrtime() < until_)                                      \
      rig_turn(rig);                                                           \
    if (!CHECK(so))                                                            \
      rig_tell(rig);                                                           \
  } while (0)

/* What is left is closed; nothing may be left of the pair after that. */
static inline void rig_close(struct rig *rig) {
  unsigned i;

  for (i = 0; i < 2; i++)
    if (!rig->peers[i].closed)
      close(rig->peers[i].fd);
  if (rig->pair != NULL)
    relay__crew_drop(rig->pair, UV_ECANCELED), rig->ends++;
  if (rig->second != NULL)
    relay__crew_drop(rig->second, UV_ECANCELED), rig->ends++;
  relay__crew_close(&rig->crew);
  relay__plane_close(&rig->plane);
  CHECK_INT(0, uv_run(&rig->loop, UV_RUN_DEFAULT));
  CHECK_INT(0, rig->plane.handles);
  CHECK_INT(0, rig->plane.fds.used);
  CHECK_INT(rig->pairs, rig->ends);
  relay__tls_context_free(rig->client);
  relay__tls_context_free(rig->server);
  CHECK_INT(0, uv_loop_close(&rig->loop));
}

#endif
