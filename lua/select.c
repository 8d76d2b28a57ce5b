/* SPDX-License-Identifier: MIT */
/*
 * select over sockets, and over tables with the methods getfd and dirty that
 * stand for one, as LuaSocket's sinks and sources do. What is ready is asked of
 * poll; the task waits on all sockets at once.
 */
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "socket.h"

/* The stack of a select. */
enum { AT_READ = 1, AT_WRITE, AT_TIME, AT_SELECTION, AT_OBJECTS };

/* One descriptor, once, whichever lists it is in. Its socket is looked for each
   time: what the lists hold may have let go of it. */
struct candidate {
  int fd;
  uint64_t serial;
  bool wanted[2]; /* by side */
  bool ready[2];
};

struct selection {
  struct task *task;
  uint64_t began_ns;
  double seconds; /* negative: without end */
  int dirty;      /* of the first list, had at once */
  size_t room;
  size_t count;
  struct candidate list[];
};

/* ---- gathering -------------------------------------------------------- */

/* Calls a method of the object on top; its result replaces nothing. */
static bool call(lua_State *L, const char *name) {
  if (lua_getfield(L, -1, name) == LUA_TNIL)
    return false;
  lua_pushvalue(L, -2);
  lua_call(L, 1, 1);
  return true;
}

static int fd_of(lua_State *L) {
  lua_Number fd = -1;

  if (call(L, "getfd") && lua_isnumber(L, -1))
    fd = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return fd >= 0 && fd < 1e9 ? (int)fd : -1;
}

static bool is_dirty(lua_State *L) {
  bool dirty = call(L, "dirty") && lua_toboolean(L, -1);

  lua_pop(L, 1);
  return dirty;
}

static struct socket *find(const struct policy *policy, int fd) {
  struct socket *s = policy->sockets;

  while (s != NULL && s->fd != fd)
    s = s->next;
  return s;
}

static struct candidate *add(lua_State *L, struct selection *selection,
                             int fd) {
  struct candidate *at = selection->list, *end = at + selection->count;
  const struct socket *s;

  while (at < end && at->fd != fd)
    at++;
  if (at < end)
    return at;
  s = find(relay__lua_policy_of(L), fd);
  if (s == NULL || selection->count == selection->room) {
    luaL_error(L, "select: descriptor %d is not a socket of this policy", fd);
    return NULL;
  }
  at->fd = fd;
  at->serial = s->serial;
  selection->count++;
  return at;
}

/* Those that have something to read already go to the list at `to`. */
static void collect(lua_State *L, struct selection *selection, enum side side,
                    int from, int to) {
  lua_Integer i;

  if (lua_isnil(L, from))
    return;
  luaL_checktype(L, from, LUA_TTABLE);
  for (i = 1; lua_geti(L, from, i) != LUA_TNIL; i++) {
    int fd = fd_of(L);

    if (fd >= 0) {
      struct candidate *candidate = add(L, selection, fd);

      lua_pushvalue(L, -1);
      lua_rawseti(L, AT_OBJECTS, fd);
      if (side == SIDE_READ && is_dirty(L)) {
        lua_pushvalue(L, -1);
        lua_rawseti(L, to, ++selection->dirty);
      } else {
        candidate->wanted[side] = true;
      }
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

static int by_fd(const void *a, const void *b) {
  return ((const struct candidate *)a)->fd - ((const struct candidate *)b)->fd;
}

/* ---- asking ----------------------------------------------------------- */

/* A socket that was closed meanwhile is ready: the next call on it says so. */
static void look(struct candidate *at, const struct socket *s) {
  struct pollfd poll_fd = {.fd = at->fd};
  bool gone = s == NULL || s->serial != at->serial;

  if (at->wanted[SIDE_READ])
    poll_fd.events |= POLLIN;
  if (at->wanted[SIDE_WRITE])
    poll_fd.events |= POLLOUT;
  if (!gone)
    poll(&poll_fd, 1, 0);
  at->ready[SIDE_READ] =
      at->wanted[SIDE_READ] &&
      (gone || (poll_fd.revents & (POLLIN | POLLHUP | POLLERR)) != 0);
  at->ready[SIDE_WRITE] =
      at->wanted[SIDE_WRITE] &&
      (gone || (poll_fd.revents & (POLLOUT | POLLERR)) != 0);
}

/* How many are ready. */
static int ask(const struct policy *policy, struct selection *selection) {
  int count = 0;
  size_t i;

  for (i = 0; i < selection->count; i++) {
    struct candidate *at = &selection->list[i];

    look(at, find(policy, at->fd));
    count += at->ready[SIDE_READ] + at->ready[SIDE_WRITE];
  }
  return count;
}

/* ---- waiting ---------------------------------------------------------- */

static void on_wait_end(void *wait, bool killed) {
  const struct task *task = wait;
  struct socket *s;
  int side;

  (void)killed;
  for (s = task->policy->sockets; s != NULL; s = s->next)
    for (side = SIDE_READ; side <= SIDE_WRITE; side++)
      if (s->slots[side].task == task)
        relay__lua_socket_unwatch(&s->slots[side]);
}

static int watch(const struct candidate *at, struct task *task) {
  struct socket *s = find(task->policy, at->fd);
  int side, err = 0;

  for (side = SIDE_READ; side <= SIDE_WRITE && err == 0; side++)
    if (at->wanted[side])
      err = s->slots[side].task != NULL
                ? UV_EBUSY
                : relay__lua_socket_watch(s, side, task);
  return err;
}

static void watch_all(lua_State *L, const struct selection *selection) {
  struct task *task = selection->task;
  size_t i;
  int err = 0;

  task->wait = task;
  task->on_wait_end = on_wait_end;
  for (i = 0; i < selection->count && err == 0; i++)
    err = watch(&selection->list[i], task);
  if (err == 0)
    return;
  relay__lua_task_end_wait(task);
  luaL_error(L, "select: %s",
             err == UV_EBUSY ? "another hook waits on one of the sockets"
                             : uv_strerror(err));
}

/* The list at `list`, also by object. */
static void index_list(lua_State *L, int list) {
  lua_Integer i, count = (lua_Integer)lua_rawlen(L, list);

  for (i = 1; i <= count; i++) {
    lua_rawgeti(L, list, i);
    lua_pushnumber(L, (lua_Number)i);
    lua_rawset(L, list);
  }
}

static void fill(lua_State *L, const struct selection *selection,
                 enum side side, int to) {
  lua_Integer at = side == SIDE_READ ? selection->dirty : 0;
  size_t i;

  for (i = 0; i < selection->count; i++)
    if (selection->list[i].ready[side]) {
      lua_rawgeti(L, AT_OBJECTS, selection->list[i].fd);
      lua_rawseti(L, to, ++at);
    }
  index_list(L, to);
}

static int step(lua_State *L, int status, lua_KContext context) {
  struct selection *selection = lua_touserdata(L, AT_SELECTION);
  int read_list = AT_OBJECTS + 1, write_list = AT_OBJECTS + 2;
  int count = ask(relay__lua_policy_of(L), selection);
  double spent, left;

  (void)status;
  (void)context;
  spent = (double)(uv_hrtime() - selection->began_ns) / 1e9;
  left = selection->seconds < 0 ? -1 : fmax(selection->seconds - spent, 0);
  if (count + selection->dirty == 0 && left != 0) {
    watch_all(L, selection);
    if (left > 0)
      relay__lua_task_sleep(selection->task,
                            (uint64_t)ceil(fmin(left, 1e9) * 1000));
    return relay__lua_wait(L, 0, step);
  }
  fill(L, selection, SIDE_READ, read_list);
  fill(L, selection, SIDE_WRITE, write_list);
  if (count + selection->dirty != 0)
    return 2;
  lua_pushliteral(L, "timeout");
  return 3;
}

/* (to read, to write[, seconds]) */
int relay__lua_select(lua_State *L) {
  lua_Number seconds = luaL_optnumber(L, 3, -1);
  size_t room = relay__lua_policy_of(L)->socket_count;
  size_t size = sizeof(struct selection) + room * sizeof(struct candidate);
  struct selection *selection;

  lua_settop(L, 3);
  selection = lua_newuserdatauv(L, size, 0);
  memset(selection, 0, size);
  selection->room = room;
  lua_newtable(L); /* AT_OBJECTS: descriptor to object */
  lua_newtable(L);
  lua_newtable(L);
  collect(L, selection, SIDE_READ, AT_READ, AT_OBJECTS + 1);
  collect(L, selection, SIDE_WRITE, AT_WRITE, AT_OBJECTS + 2);
  qsort(selection->list, selection->count, sizeof(*selection->list), by_fd);
  selection->seconds = selection->dirty > 0 ? 0 : seconds;
  selection->began_ns = uv_hrtime();
  if (selection->seconds != 0)
    selection->task = relay__lua_wait_begin(L, "select");
  return step(L, LUA_OK, 0);
}
