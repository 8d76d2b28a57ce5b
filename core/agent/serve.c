/* SPDX-License-Identifier: MIT */
/*
 * The host's answers for a visitor: which side it is to be joined to. The
 * data connection and the target are reached at the same time; whichever is
 * there first waits for the other with its bytes in the kernel.
 *
 * An answer is taken or not; once taken, whatever fails ends the visit, and
 * that is told from the loop.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "agent/private.h"

/* Data connections that are being made at a time, where there is a key to prove
   on each. */
#define DIALS_MAX 64
/* A unix socket whose backlog is full refuses at once, where TCP would wait. */
#define TARGET_RETRY_MS 10
/* "unix:" and the longest path, or a name. */
#define SERVICE_TEXT_MAX 256

/* ---- two sides -------------------------------------------------------- */

/* Before both sides are there, one of them was reset. What a service said
   before that is still to be delivered: the pair will see to it. */
static void on_held_event(struct stream *stream, int events) {
  struct visit *visit = stream->owner;
  int error = stream->error != 0 ? stream->error : UV_ECONNRESET;

  (void)events;
  if (stream == visit->target)
    return;
  relay__visit_end(visit, error, relay_strerror(error));
}

int relay__serve_hold(struct visit *visit, struct stream *stream) {
  relay__stream_own(stream, on_held_event, visit);
  return relay__stream_watch(stream, 0);
}

/* As it was given to us, or the first of its addresses. */
static void describe_target(const struct visit *visit, char *text,
                            size_t size) {
  const struct sockaddr *address =
      (const struct sockaddr *)&visit->target_address;
  const char *path = ((const struct sockaddr_un *)address)->sun_path;
  size_t before = offsetof(struct sockaddr_un, sun_path);
  size_t length =
      visit->target_length > before ? visit->target_length - before : 0;

  if (visit->target_resolve != NULL)
    snprintf(text, size, "%s", relay__resolve_name(visit->target_resolve));
  else if (address->sa_family != AF_UNIX || length < 2)
    relay__address_text(address, text, size);
  else
    snprintf(text, size, "unix:%s%.*s", path[0] == '\0' ? "@" : "",
             (int)length - (path[0] == '\0'), path + (path[0] == '\0'));
}

/* Of many visitors in a row that find it shut, the first is told. */
void relay__serve_unreached(struct visit *visit, int error) {
  struct relay_agent *agent = visit->agent;
  bool tell = !agent->is_unserved &&
              relay__agent_may_tell(agent, &agent->unserved_told_ms);
  char text[SERVICE_TEXT_MAX];

  describe_target(visit, text, sizeof(text));
  relay__log(&agent->logger, tell ? RELAY_LOG_WARN : RELAY_LOG_DEBUG,
             "service not reached", LOG_TEXT("service", text),
             LOG_TEXT("reason", relay_strerror(error)));
  agent->is_unserved = agent->is_unserved || tell;
}

static void note_reached(struct relay_agent *agent) {
  if (agent->is_unserved)
    relay__log_fields(&agent->logger, RELAY_LOG_INFO,
                      "service is reached again", NULL, 0);
  agent->is_unserved = false;
}

/* A side was reached, or could not be. */
static void take_side(struct visit *visit, struct stream **side, int status,
                      struct stream *stream, const char *what) {
  char why[AGENT_REASON_MAX];

  if (status == 0) {
    *side = stream;
    status = relay__serve_hold(visit, stream);
  }
  if (status == 0) {
    relay__visit_join(visit);
    return;
  }
  snprintf(why, sizeof(why), "%s: %s", what, relay_strerror(status));
  relay__visit_end(visit, status, why);
}

static void take_service(struct visit *visit, int status,
                         struct stream *stream) {
  if (status != 0)
    relay__serve_unreached(visit, status);
  else
    note_reached(visit->agent);
  visit->target_resolve = NULL;
  take_side(visit, &visit->target, status, stream, "service");
}

static void on_data_dialed(struct dial *dial, int status,
                           struct stream *stream) {
  struct visit *visit = dial->owner;

  relay__serve_undial(visit);
  relay__session_note_data(visit->agent, status);
  take_side(visit, &visit->data, status, stream, "data connection");
}

static void on_target_dialed(struct dial *dial, int status,
                             struct stream *stream) {
  take_service(dial->owner, status, stream);
}

void relay__serve_init(struct visit *visit) {
  struct plane *plane = &visit->agent->plane;

  link_init(&visit->undialed);
  relay__dial_init(&visit->data_dial, plane, on_data_dialed, visit);
  relay__dial_init(&visit->target_dial, plane, on_target_dialed, visit);
  visit->target_dial.takes_reset = true;
}

void relay__serve_undial(struct visit *visit) {
  struct relay_agent *agent = visit->agent;

  link_remove(&visit->undialed);
  if (!visit->dialing)
    return;
  visit->dialing = false;
  agent->dialing--;
  if (!link_is_empty(&agent->undialed) && !agent->closing)
    relay__deadline_set(&agent->next_dial, 0);
}

void relay__serve_next(struct deadline *next_dial) {
  struct relay_agent *agent =
      container_of(next_dial, struct relay_agent, next_dial);

  while (!link_is_empty(&agent->undialed) && agent->dialing < DIALS_MAX) {
    struct visit *visit =
        container_of(agent->undialed.next, struct visit, undialed);

    link_remove(&visit->undialed);
    relay__serve_data(visit);
  }
}

void relay__serve_data(struct visit *visit) {
  struct relay_agent *agent = visit->agent;
  struct wire_line line;

  if (visit->data != NULL || relay__dial_busy(&visit->data_dial) ||
      agent->session.phase == SESSION_NAMING)
    return;
  if (agent->tls != NULL && agent->dialing >= DIALS_MAX) {
    link_remove(&visit->undialed);
    link_append(&agent->undialed, &visit->undialed);
    return;
  }
  relay__wire_begin(&line, WIRE_ACCEPT);
  relay__wire_add(&line, "session", agent->session.id);
  relay__wire_add(&line, "id", visit->id);
  int err =
      relay__keys_secure_accept(agent, &visit->data_dial, &line, visit->id);
  if (err == 0)
    err = relay__wire_end(&line);
  if (err == 0)
    err = relay__dial_open_with(&visit->data_dial, line.text, line.length);
  if (err == 0)
    err = relay__session_dial(agent, &visit->data_dial);
  visit->dialing = err == 0;
  agent->dialing += err == 0;
  if (err != 0)
    take_side(visit, &visit->data, err, NULL, "data connection");
}

/* The addresses after the first. */
static const struct addrinfo *target_rest(const struct visit *visit) {
  if (visit->target_list != NULL)
    return visit->target_list->ai_next;
  return visit->loopback_info.ai_addr != NULL ? &visit->loopback_info : NULL;
}

static void dial_target(struct visit *visit) {
  uint64_t now = uv_now(visit->agent->plane.loop);
  uint64_t left_ms = visit->expires_ms > now ? visit->expires_ms - now : 0;
  int err = relay__dial_start(&visit->target_dial,
                              (const struct sockaddr *)&visit->target_address,
                              visit->target_length, target_rest(visit));

  visit->retrying = err == UV_EAGAIN;
  if (visit->retrying && left_ms > TARGET_RETRY_MS)
    left_ms = TARGET_RETRY_MS;
  if (err == 0 || visit->retrying)
    relay__deadline_set(&visit->limit, left_ms);
  else
    take_service(visit, err, NULL);
}

void relay__serve_retry(struct visit *visit) {
  dial_target(visit);
}

/* ---- answers ---------------------------------------------------------- */

/* The visit with that id, if it still waits for its answer. */
static int find_asked(relay_agent *agent, const char *id,
                      struct visit **visit) {
  *visit = id != NULL ? relay__visit_find(agent, id) : NULL;
  if (*visit == NULL)
    return RELAY_EGONE;
  return (*visit)->phase == VISIT_ASKED ? 0 : UV_EALREADY;
}

/* Both sides are under way. Either may have failed already. */
static void start_joining(struct visit *visit) {
  if (visit->phase == VISIT_JOINING)
    relay__serve_data(visit);
  relay__visit_join(visit);
}

int relay_agent_serve_echo(relay_agent *agent, const char *id) {
  struct visit *visit;
  int err = find_asked(agent, id, &visit);

  if (err != 0)
    return err;
  visit->phase = VISIT_JOINING;
  visit->echo = true;
  start_joining(visit);
  return 0;
}

static int check_address(const struct sockaddr *address, unsigned length) {
  if (address == NULL || length < sizeof(sa_family_t) ||
      length > sizeof(struct sockaddr_storage))
    return UV_EINVAL;
  if (address->sa_family == AF_UNIX)
    return 0;
  return relay__address_length(address) <= length &&
                 (address->sa_family == AF_INET ||
                  address->sa_family == AF_INET6)
             ? 0
             : UV_EINVAL;
}

/* Takes the answer: a target that has to be reached, within connect_ms. */
static int take_target(relay_agent *agent, const char *id, const void *preamble,
                       size_t preamble_len, struct visit **out) {
  struct visit *visit;
  uint64_t until_ms = uv_now(agent->plane.loop) + agent->options.connect_ms;
  int err = preamble_len > AGENT_PREAMBLE_MAX ? UV_EINVAL
                                              : find_asked(agent, id, &visit);

  if (err != 0)
    return err;
  if (until_ms < visit->expires_ms)
    visit->expires_ms = until_ms;
  visit->phase = VISIT_JOINING;
  (void)relay__dial_open_with(&visit->target_dial, preamble, preamble_len);
  *out = visit;
  return 0;
}

static void set_target(struct visit *visit, const struct sockaddr *address,
                       socklen_t length) {
  memcpy(&visit->target_address, address, length);
  visit->target_length = length;
}

int relay_agent_serve_address(relay_agent *agent, const char *id,
                              const struct sockaddr *address,
                              unsigned address_len, const void *preamble,
                              size_t preamble_len) {
  struct visit *visit;
  int err = check_address(address, address_len);

  if (err == 0)
    err = take_target(agent, id, preamble, preamble_len, &visit);
  if (err != 0)
    return err;
  set_target(visit, address, address_len);
  dial_target(visit);
  start_joining(visit);
  return 0;
}

/* ---- a target by name ------------------------------------------------- */

static void on_target_resolved(void *owner, int status,
                               struct addrinfo *addresses) {
  struct visit *visit = owner;

  if (status != 0) {
    take_service(visit, status, NULL);
    return;
  }
  visit->target_resolve = NULL;
  visit->target_list = addresses;
  set_target(visit, addresses->ai_addr, addresses->ai_addrlen);
  dial_target(visit);
}

static void dial_loopback(struct visit *visit, unsigned port) {
  struct sockaddr_in first = {0};

  first.sin_family = AF_INET;
  first.sin_port = htons((uint16_t)port);
  first.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  set_target(visit, (const struct sockaddr *)&first, sizeof(first));
  visit->loopback.sin6_family = AF_INET6;
  visit->loopback.sin6_port = first.sin_port;
  visit->loopback.sin6_addr = in6addr_loopback;
  visit->loopback_info.ai_addr = (struct sockaddr *)&visit->loopback;
  visit->loopback_info.ai_addrlen = sizeof(visit->loopback);
  dial_target(visit);
}

int relay_agent_serve_name(relay_agent *agent, const char *id, const char *host,
                           unsigned port, const void *preamble,
                           size_t preamble_len) {
  struct visit *visit;
  int err = port == 0 || port > 65535 ? UV_EINVAL : 0;

  if (err == 0)
    err = take_target(agent, id, preamble, preamble_len, &visit);
  if (err != 0)
    return err;
  if (host == NULL || strcmp(host, "localhost") == 0)
    dial_loopback(visit, port);
  else
    err = relay__resolve_start(&visit->target_resolve, &agent->plane, host,
                               port, on_target_resolved, visit);
  if (err != 0)
    take_service(visit, err, NULL);
  start_joining(visit);
  return 0;
}

static int check_fd(int fd) {
  int type = 0;
  socklen_t length = sizeof(type);

  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0)
    return -errno;
  return type == SOCK_STREAM ? 0 : UV_EINVAL;
}

int relay_agent_serve_fd(relay_agent *agent, const char *id, int fd) {
  struct visit *visit;
  struct stream *stream = NULL;
  int err = check_fd(fd);

  if (err == 0)
    err = find_asked(agent, id, &visit);
  if (err == 0)
    err = relay__stream_tune(&agent->plane, fd);
  if (err != 0)
    return err;
  visit->phase = VISIT_JOINING;
  err = relay__stream_open(&stream, &agent->plane, fd); /* fd is taken */
  take_side(visit, &visit->target, err, stream, "service");
  start_joining(visit);
  return 0;
}

int relay_agent_reject(relay_agent *agent, const char *id, const char *reason) {
  struct visit *visit;
  int err = find_asked(agent, id, &visit);

  if (err == 0)
    relay__visit_end(visit, RELAY_EDENIED,
                     reason != NULL ? reason : relay_strerror(RELAY_EDENIED));
  return err;
}
