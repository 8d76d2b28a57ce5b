/* SPDX-License-Identifier: MIT */
/*
 * The options of a socket that is to be relayed, and what the kernel thinks of
 * its peer. See stream.h.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

#include "net/stream.h"

#ifdef __linux__
#include <linux/sockios.h>
#endif

#define KEEPALIVE_COUNT_MAX 127 /* for the kernel */

struct option {
  int level;
  int name;
  int value;
};

static const struct option tcp_options[] = {
    {IPPROTO_TCP, TCP_NODELAY, 1},
    {SOL_SOCKET, SO_OOBINLINE, 1},
#ifdef TCP_NOTSENT_LOWAT
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, STREAM_UNSENT_BYTES},
#endif
};

static int set_option(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof(value)) != 0 ? -errno : 0;
}

static int keep_alive(const struct keepalive *keepalive, int fd) {
  int err = set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);

#ifdef TCP_KEEPIDLE
  if (err == 0)
    err = set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepalive->idle_s);
  if (err == 0)
    err = set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, keepalive->interval_s);
  if (err == 0)
    err = set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, keepalive->count);
#else
  (void)keepalive;
#endif
  return err;
}

int relay__stream_tune_dial(const struct plane *plane, int fd, int family) {
  static const struct linger reset_on_close = {1, 0};
  size_t i;
  int err = 0;

  if (family == AF_UNIX)
    return 0;
  if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset_on_close,
                 sizeof(reset_on_close)) != 0)
    return -errno;
  for (i = 0; err == 0 && i < sizeof(tcp_options) / sizeof(*tcp_options); i++)
    err = set_option(fd, tcp_options[i].level, tcp_options[i].name,
                     tcp_options[i].value);
  if (err == 0 && plane->rcvbuf_bytes != 0)
    err = set_option(fd, SOL_SOCKET, SO_RCVBUF, plane->rcvbuf_bytes);
  return err;
}

int relay__stream_tune(const struct plane *plane, int fd) {
  struct sockaddr_storage self = {.ss_family = AF_UNSPEC};
  socklen_t length = sizeof(self);
  int err;

  if (getsockname(fd, (struct sockaddr *)&self, &length) != 0)
    return -errno;
  err = relay__stream_tune_dial(plane, fd, self.ss_family);
  if (err == 0 && self.ss_family != AF_UNIX)
    err = keep_alive(&plane->keepalive, fd);
  return err;
}

#ifdef TCP_KEEPIDLE
/* The kernel keeps timers of about a minute to 2 or 4 s (2^11 or 2^12 ms): what
   expires in one such grain expires in one moment. So who was silent for longer
   is asked in bursts, and an even number of seconds later might always meet the
   next one; an odd one does not. */
static int odd(int seconds) {
  return seconds < 2 ? seconds : (seconds - 1) | 1;
}

/* The intervals there are: odd ones from a quarter of it up to all of it. */
static int choose_interval(int seconds, unsigned turn) {
  int least = odd((seconds + 3) / 4);
  int most = odd(seconds);

  return least + 2 * (int)(turn % (unsigned)((most - least) / 2 + 1));
}

/* From half of it up to all of it. */
static int choose_idle(int seconds, unsigned turn) {
  return seconds < 2 ? seconds
                     : seconds - (int)(turn % ((unsigned)seconds / 2));
}
#endif

void relay__stream_keep_alive(const struct stream *stream) {
#ifdef TCP_KEEPIDLE
  struct plane *plane = stream->plane;
  const struct keepalive *keepalive = &plane->keepalive;
  unsigned turn = plane->spread++;
  unsigned idles = keepalive->idle_s < 2 ? 1 : (unsigned)keepalive->idle_s / 2;
  int interval_s = choose_interval(keepalive->interval_s, turn / idles);
  int count = keepalive->interval_s * keepalive->count / interval_s;
  const struct keepalive own = {
      choose_idle(keepalive->idle_s, turn), interval_s,
      count < KEEPALIVE_COUNT_MAX ? count : KEEPALIVE_COUNT_MAX};

  keep_alive(&own, stream->fd); /* a unix socket has no such options */
#else
  keep_alive(&stream->plane->keepalive, stream->fd);
#endif
}

unsigned relay__stream_segment(const struct stream *stream) {
  int segment = 0;
  socklen_t length = sizeof(segment);

  if (getsockopt(stream->fd, IPPROTO_TCP, TCP_MAXSEG, &segment, &length) != 0)
    return 0;
  return segment > 0 ? (unsigned)segment : 0;
}

/* Repetitions that must have gone unanswered: one may be on its way. */
#define DEAF_TRIES 2

bool relay__stream_is_deaf(const struct stream *stream, uint64_t ms) {
#ifdef __linux__
  struct tcp_info info;
  socklen_t length = sizeof(info);

  return getsockopt(stream->fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 &&
         info.tcpi_last_ack_recv >= ms &&
         (info.tcpi_retransmits >= DEAF_TRIES ||
          info.tcpi_probes >= DEAF_TRIES);
#else
  (void)stream, (void)ms;
  return false;
#endif
}

bool relay__stream_is_beyond_reset(const struct stream *stream) {
#ifdef __linux__
  struct tcp_info info;
  socklen_t length = sizeof(info);
  int unsent = 0;

  return getsockopt(stream->fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 &&
         (info.tcpi_state == TCP_CLOSING || info.tcpi_state == TCP_LAST_ACK) &&
         ioctl(stream->fd, SIOCOUTQNSD, &unsent) == 0 && unsent == 0;
#else
  (void)stream;
  return false;
#endif
}
