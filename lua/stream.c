/* SPDX-License-Identifier: MIT */
/*
 * Sending and receiving, with the patterns and results of LuaSocket. What was
 * received so far is gathered outside of Lua's stack, within the script's
 * memory cap, so that it outlives each wait; what is sent stays on the stack.
 */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/socket.h>

#include "socket.h"

/* What is kept for the next line. */
#define GATHERED_KEPT 4096

/* ---- system calls ----------------------------------------------------- */

static int outcome_of(int error, int again) {
  if (error == EAGAIN || error == EWOULDBLOCK)
    return again;
  return error == EPIPE ? IO_CLOSED : error;
}

int relay__lua_socket_take(struct socket *s, void *bytes, size_t count,
                           size_t *got) {
  ssize_t result;

  *got = 0;
  if (s->fd < 0)
    return IO_CLOSED;
  if (s->tls != NULL)
    return relay__lua_tls_take(s, bytes, count, got);
  do
    result = recv(s->fd, bytes, count, 0);
  while (result < 0 && errno == EINTR);
  if (result < 0)
    return outcome_of(errno, IO_READ);
  *got = (size_t)result;
  return result == 0 ? IO_CLOSED : IO_DONE;
}

int relay__lua_socket_put(struct socket *s, const void *bytes, size_t count,
                          size_t *sent) {
  ssize_t result;

  *sent = 0;
  if (s->fd < 0)
    return IO_CLOSED;
  if (s->tls != NULL)
    return relay__lua_tls_put(s, bytes, count, sent);
  do
    result = send(s->fd, bytes, count, MSG_NOSIGNAL);
  while (result < 0 && errno == EINTR);
  if (result < 0)
    return outcome_of(errno, IO_WRITE);
  *sent = (size_t)result;
  return IO_DONE;
}

static void count_bytes(struct socket *s, enum side side, size_t count) {
  s->slots[side].moved += count;
  if (count != 0)
    relay__lua_socket_progress(s, side);
}

/* Whether it has had its turn: others are due, if it may wait at all. */
static bool is_greedy(const struct socket *s, enum side side) {
  return s->slots[side].moved >= TURN_BYTES &&
         !relay__lua_socket_is_late(s, side);
}

/* ---- gathering -------------------------------------------------------- */

static void resize(lua_State *L, struct socket *s, size_t room) {
  void *data, *moved;
  lua_Alloc allocate = lua_getallocf(L, &data);

  moved = allocate(data, s->gathered, s->gathered_room, room);
  if (moved == NULL && room != 0) {
    lua_gc(L, LUA_GCCOLLECT, 0);
    moved = allocate(data, s->gathered, s->gathered_room, room);
    if (moved == NULL)
      luaL_error(L, "not enough memory");
  }
  s->gathered = moved;
  s->gathered_room = room;
}

void relay__lua_socket_drop(lua_State *L, struct socket *s) {
  s->gathered_size = 0;
  if (s->gathered != NULL)
    resize(L, s, 0);
}

static void gather(lua_State *L, struct socket *s, const char *bytes,
                   size_t count) {
  size_t room = s->gathered_room;

  if (count == 0)
    return;
  if (room - s->gathered_size < count) {
    room = room < 512 ? 1024 : room * 2;
    if (room - s->gathered_size < count)
      room = s->gathered_size + count;
    resize(L, s, room);
  }
  memcpy(s->gathered + s->gathered_size, bytes, count);
  s->gathered_size += count;
}

/* Without any CR, wherever it stands: LuaSocket's way. */
static void gather_line(lua_State *L, struct socket *s, const char *bytes,
                        size_t count) {
  while (count != 0) {
    const char *cr = memchr(bytes, '\r', count);
    size_t plain = cr != NULL ? (size_t)(cr - bytes) : count;

    gather(L, s, bytes, plain);
    bytes += plain;
    count -= plain;
    if (cr != NULL) {
      bytes++;
      count--;
    }
  }
}

/* ---- receive ---------------------------------------------------------- */

static int read_ahead(struct socket *s) {
  size_t got;
  int outcome;

  if (s->first < s->last)
    return IO_DONE;
  s->first = s->last = 0;
  if (is_greedy(s, SIDE_READ))
    return IO_READ;
  outcome = relay__lua_socket_take(s, s->buffer, sizeof(s->buffer), &got);
  s->last = got;
  count_bytes(s, SIDE_READ, got);
  return outcome;
}

static void skip(struct socket *s, size_t count) {
  s->first += count;
  s->received += (double)count;
}

/* Takes what it can use of what is there. True: that was all it wanted. */
static bool consume(lua_State *L, struct socket *s) {
  const char *bytes = s->buffer + s->first, *end;
  size_t count = s->last - s->first, left = s->wanted - s->taken;

  if (s->pattern == 'l') {
    end = memchr(bytes, '\n', count);
    gather_line(L, s, bytes, end != NULL ? (size_t)(end - bytes) : count);
    skip(s, end != NULL ? (size_t)(end - bytes) + 1 : count);
    return end != NULL;
  }
  if (s->pattern == 'n' && count > left)
    count = left;
  gather(L, s, bytes, count);
  skip(s, count);
  s->taken += count;
  return s->pattern == 'n' && s->taken >= s->wanted;
}

/* Three values, always. */
static int receive_end(lua_State *L, struct socket *s, int outcome) {
  if (outcome == IO_CLOSED && s->pattern == 'a' && s->taken > 0)
    outcome = IO_DONE;
  if (outcome != IO_DONE)
    relay__lua_socket_fail(L, s, outcome);
  lua_pushlstring(L, s->gathered, s->gathered_size);
  if (s->gathered_room > GATHERED_KEPT)
    relay__lua_socket_drop(L, s);
  if (outcome == IO_DONE) {
    lua_pushnil(L);
    lua_pushnil(L);
  }
  return 3;
}

static int receive_step(lua_State *L, int status, lua_KContext context) {
  struct socket *s = lua_touserdata(L, 1);
  int outcome = IO_DONE;

  (void)status;
  if (relay__lua_socket_is_another(s, context)) {
    relay__lua_socket_fail(L, s, IO_CLOSED);
    lua_pushliteral(L, "");
    return 3;
  }
  while (outcome == IO_DONE) {
    outcome = read_ahead(s);
    if (outcome == IO_DONE && consume(L, s))
      return receive_end(L, s, IO_DONE);
  }
  if (outcome != IO_READ && outcome != IO_WRITE)
    return receive_end(L, s, outcome);
  if (relay__lua_socket_is_late(s, SIDE_READ))
    return receive_end(L, s, IO_TIMEOUT);
  return relay__lua_socket_wait(L, s, SIDE_READ, outcome, "tcp:receive",
                                receive_step);
}

static void read_pattern(lua_State *L, struct socket *s, size_t prefix_size) {
  const char *pattern;
  lua_Number number;

  s->taken = s->wanted = 0;
  if (lua_isnumber(L, 2)) {
    number = lua_tonumber(L, 2);
    luaL_argcheck(L, number >= 0 && number < 1e15, 2,
                  "invalid receive pattern");
    s->pattern = 'n';
    s->wanted = (size_t)number;
    s->wanted -= prefix_size < s->wanted ? prefix_size : s->wanted;
    return;
  }
  pattern = luaL_optstring(L, 2, "*l");
  luaL_argcheck(L,
                pattern[0] == '*' && (pattern[1] == 'l' || pattern[1] == 'a'),
                2, "invalid receive pattern");
  s->pattern = pattern[1];
}

int relay__lua_socket_receive(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, "client");
  size_t prefix_size;
  const char *prefix = luaL_optlstring(L, 3, "", &prefix_size);

  relay__lua_socket_begin(L, s, SIDE_READ, "tcp:receive");
  lua_settop(L, 3);
  read_pattern(L, s, prefix_size);
  s->gathered_size = 0;
  gather(L, s, prefix, prefix_size);
  if (s->pattern == 'n' && s->wanted == 0 && prefix_size != 0)
    return receive_end(L, s, IO_DONE);
  return receive_step(L, LUA_OK, (lua_KContext)s->serial);
}

/* ---- send ------------------------------------------------------------- */

static int send_end(lua_State *L, struct socket *s, int outcome) {
  if (outcome != IO_DONE)
    relay__lua_socket_fail(L, s, outcome);
  lua_pushnumber(L, (lua_Number)s->send_at);
  if (outcome == IO_DONE) {
    lua_pushnil(L);
    lua_pushnil(L);
  }
  return 3;
}

/* The string at 2. */
static int send_step(lua_State *L, int status, lua_KContext context) {
  struct socket *s = lua_touserdata(L, 1);
  const char *bytes = lua_tostring(L, 2);
  int outcome = IO_DONE;

  (void)status;
  if (relay__lua_socket_is_another(s, context)) {
    relay__lua_socket_fail(L, s, IO_CLOSED);
    lua_pushinteger(L, 0);
    return 3;
  }
  while (outcome == IO_DONE && s->send_at < s->send_end) {
    size_t count = s->send_end - s->send_at, sent = 0;

    if (is_greedy(s, SIDE_WRITE))
      outcome = IO_WRITE;
    else
      outcome = relay__lua_socket_put(s, bytes + s->send_at, count, &sent);
    s->send_at += sent;
    s->sent += (double)sent;
    count_bytes(s, SIDE_WRITE, sent);
  }
  if (outcome != IO_READ && outcome != IO_WRITE)
    return send_end(L, s, outcome);
  if (relay__lua_socket_is_late(s, SIDE_WRITE))
    return send_end(L, s, IO_TIMEOUT);
  return relay__lua_socket_wait(L, s, SIDE_WRITE, outcome, "tcp:send",
                                send_step);
}

/* The bytes from `first` to `last`, counted as string.sub does. */
int relay__lua_socket_send(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, "client");
  size_t size;
  lua_Number first, last;

  luaL_checklstring(L, 2, &size);
  first = trunc(luaL_optnumber(L, 3, 1));
  last = trunc(luaL_optnumber(L, 4, -1));
  if (first < 0)
    first += (lua_Number)size + 1;
  if (last < 0)
    last += (lua_Number)size + 1;
  first = first < 1 ? 1 : first;
  last = last > (lua_Number)size ? (lua_Number)size : last;
  relay__lua_socket_begin(L, s, SIDE_WRITE, "tcp:send");
  if (!(first <= last)) {
    lua_pushnumber(L, first - 1);
    lua_pushnil(L);
    lua_pushnil(L);
    return 3;
  }
  s->send_at = (size_t)first - 1;
  s->send_end = (size_t)last;
  return send_step(L, LUA_OK, (lua_KContext)s->serial);
}
