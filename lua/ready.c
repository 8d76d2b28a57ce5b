/* SPDX-License-Identifier: MIT */
/*
 * Waiting until a socket is ready. Its poll handle is made at the first wait
 * and lives until the socket closes; it watches only while somebody waits. A
 * handle closes later than its socket, so it has memory of its own.
 */
#include <math.h>
#include <stdlib.h>

#include "socket.h"

struct watch {
  uv_poll_t poll;
  struct policy *policy;
  struct socket *socket; /* NULL: closed */
  int events;            /* as they were last asked for */
};

static const int side_events[] = {
    [SIDE_READ] = UV_READABLE, [SIDE_WRITE] = UV_WRITABLE};

/* ---- time ------------------------------------------------------------- */

/* Seconds; negative: without end. The time of a block counts from the start of
   the operation too, unless there is a total: that is how LuaSocket does it. */
static double time_left(const struct socket *s, enum side side) {
  double spent = (double)(uv_hrtime() - s->slots[side].began_ns) / 1e9;

  if (s->total_s < 0)
    return s->block_s < 0 ? -1 : fmax(s->block_s - spent, 0);
  if (s->block_s < 0)
    return fmax(s->total_s - spent, 0);
  return fmin(s->block_s, fmax(s->total_s - spent, 0));
}

void relay__lua_socket_progress(struct socket *s, enum side side) {
  s->slots[side].until_ns = 0;
}

bool relay__lua_socket_is_late(const struct socket *s, enum side side) {
  uint64_t until_ns = s->slots[side].until_ns;

  return s->block_s == 0 || time_left(s, side) == 0 ||
         (until_ns != 0 && uv_hrtime() >= until_ns);
}

/* Wakes the task when its time is up: in the first wait since there was
   progress that is decided, in a wait that ended too early it is kept. */
static void set_alarm(struct socket *s, enum side side, struct task *task) {
  struct slot *slot = &s->slots[side];
  double left_s = fmin(time_left(s, side), 1e9);
  uint64_t now = uv_hrtime();

  if (left_s < 0)
    return;
  if (slot->until_ns == 0)
    slot->until_ns = now + (uint64_t)(left_s * 1e9);
  relay__lua_task_sleep(task, slot->until_ns <= now
                                  ? 0
                                  : (slot->until_ns - now + 999999) / 1000000);
}

/* ---- the handle ------------------------------------------------------- */

static void on_poll(uv_poll_t *poll, int status, int events);

/* Each start costs two system calls: only for what changed. */
static void settle(struct watch *watch) {
  int events = 0, i;

  for (i = SIDE_READ; i <= SIDE_WRITE; i++)
    if (watch->socket->slots[i].task != NULL)
      events |= side_events[i];
  if (events == watch->events)
    return;
  watch->events = events;
  if (events != 0)
    uv_poll_start(&watch->poll, events, on_poll);
  else
    uv_poll_stop(&watch->poll);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  struct watch *watch = poll->data;
  int i;

  if (status != 0) { /* it has stopped by itself: the next call says why */
    events = UV_READABLE | UV_WRITABLE;
    watch->events = 0;
  }
  for (i = SIDE_READ; i <= SIDE_WRITE; i++) {
    struct task *task = watch->socket->slots[i].task;

    if ((events & side_events[i]) != 0 && task != NULL)
      relay__lua_task_wake(task, task->generation);
    if (watch->socket == NULL)
      return;
  }
  settle(watch);
}

static int make_watch(struct socket *s) {
  struct watch *watch = malloc(sizeof(*watch));
  int err;

  if (watch == NULL)
    return UV_ENOMEM;
  err = uv_poll_init(s->policy->lua->loop, &watch->poll, s->fd);
  if (err != 0) {
    free(watch);
    return err;
  }
  watch->poll.data = watch;
  watch->policy = s->policy;
  watch->socket = s;
  watch->events = 0;
  s->policy->handles++;
  s->watch = watch;
  return 0;
}

static void on_watch_closed(uv_handle_t *handle) {
  struct watch *watch = handle->data;

  relay__lua_policy_unhold(watch->policy);
  free(watch);
}

static void on_wait_end(void *wait, bool killed);

/* Who waits is woken, and has no say any more in what becomes of the socket:
   it may be opened again before that. */
static void let_go(struct slot *slot) {
  struct task *task = slot->task;

  if (task == NULL)
    return;
  if (task->on_wait_end == on_wait_end)
    task->on_wait_end = NULL;
  relay__lua_task_sleep(task, 0);
  relay__lua_socket_unwatch(slot);
}

void relay__lua_socket_forget(struct socket *s) {
  int i;

  for (i = SIDE_READ; i <= SIDE_WRITE; i++)
    let_go(&s->slots[i]);
  if (s->watch == NULL)
    return;
  s->watch->socket = NULL;
  uv_close((uv_handle_t *)&s->watch->poll, on_watch_closed);
  s->watch = NULL;
}

/* ---- waits ------------------------------------------------------------ */

int relay__lua_socket_watch(struct socket *s, enum side side,
                            struct task *task) {
  int err = s->watch == NULL ? make_watch(s) : 0;

  if (err != 0)
    return err;
  s->slots[side].task = task;
  s->slots[side].use = side;
  settle(s->watch);
  return 0;
}

/* What is watched in vain is found out by the next event. */
void relay__lua_socket_unwatch(struct slot *slot) {
  slot->task = NULL;
}

bool relay__lua_socket_is_another(const struct socket *s, lua_KContext serial) {
  return s->serial != (uint64_t)serial;
}

static void on_wait_end(void *wait, bool killed) {
  struct slot *slot = wait;

  relay__lua_socket_unwatch(slot);
  if (killed && !slot->socket->serves)
    relay__lua_socket_close(slot->socket);
}

static bool is_used(const struct socket *s, enum side side) {
  int i;

  for (i = SIDE_READ; i <= SIDE_WRITE; i++)
    if (s->slots[i].task != NULL && s->slots[i].use == side)
      return true;
  return false;
}

void relay__lua_socket_begin(lua_State *L, struct socket *s, enum side side,
                             const char *what) {
  if (is_used(s, side))
    luaL_error(L, "%s: another hook waits on this socket", what);
  if (s->block_s != 0 && s->total_s != 0)
    relay__lua_wait_begin(L, what);
  s->slots[side].began_ns = uv_hrtime();
  relay__lua_socket_progress(s, side);
}

int relay__lua_socket_wait(lua_State *L, struct socket *s, enum side side,
                           int outcome, const char *what, lua_KFunction then) {
  enum side on = outcome == IO_READ ? SIDE_READ : SIDE_WRITE;
  struct task *task = relay__lua_wait_begin(L, what);
  int err;

  if (s->slots[on].task != NULL)
    return luaL_error(L, "%s: another hook waits on this socket", what);
  err = relay__lua_socket_watch(s, on, task);
  if (err != 0)
    return luaL_error(L, "%s: %s", what, uv_strerror(err));
  s->slots[on].use = side;
  s->slots[side].moved = 0;
  task->wait = &s->slots[on];
  task->on_wait_end = on_wait_end;
  set_alarm(s, side, task);
  if (side == SIDE_READ && relay__lua_tls_is_dirty(s))
    relay__lua_task_sleep(task, 0); /* poll does not see what TLS has read */
  return relay__lua_wait(L, (lua_KContext)s->serial, then);
}
