/* SPDX-License-Identifier: MIT */
/*
 * The pump moves patterned bytes over thousands of sockets at once, both ways,
 * and compares what comes with what must come, byte for byte. A pattern is an
 * endless stream named by its seed, so nothing is stored to compare with.
 */
#include "sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK_BYTES (64 * 1024)
#define TURN_BLOCKS 4

/* ---- the pattern ----------------------------------------------------------
 */

static uint64_t word_at(uint64_t seed, uint64_t index) {
  uint64_t word = (seed << 40) + index * 0x9e3779b97f4a7c15u + seed;

  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
  word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
  return word ^ (word >> 31);
}

void sys_pattern(uint64_t seed, uint64_t offset, unsigned char *bytes,
                 size_t count) {
  while (count > 0) {
    uint64_t word = word_at(seed, offset / 8);
    size_t skip = (size_t)(offset % 8), part = 8 - skip;
    if (part == 8 && count >= 8) { /* the common case, without a call */
      memcpy(bytes, &word, 8);
      bytes += 8, offset += 8, count -= 8;
      continue;
    }
    if (part > count)
      part = count;
    memcpy(bytes, (char *)&word + skip, part);
    bytes += part;
    offset += part;
    count -= part;
  }
}

/* ---- one end --------------------------------------------------------------
 */

struct end {
  int fd;
  uint64_t send_seed, send_total, sent;
  uint64_t recv_seed, recv_total, received;
  size_t chunk; /* most bytes a send takes */
  bool fin;     /* shut down when all is sent */
  bool eof;     /* wait for the other side's end after the last byte */
  bool any;     /* take whatever comes of the pattern, until the end */
  bool send_done, recv_done;
  uint32_t armed;
  const char *failure;
};

struct pump {
  int epoll;
  size_t count, open;
  struct end *ends;
};

static void fail(struct end *end, const char *why) {
  if (end->failure == NULL)
    end->failure = why;
  end->send_done = end->recv_done = true;
}

static void finish_send(struct end *end) {
  end->send_done = true;
  if (end->fin && shutdown(end->fd, SHUT_WR) != 0)
    fail(end, sys_error_name(errno));
}

static void turn_send(struct end *end) {
  static unsigned char block[BLOCK_BYTES];

  for (int i = 0; i < TURN_BLOCKS; i++) {
    uint64_t left = end->send_total - end->sent;
    size_t size = left < end->chunk ? (size_t)left : end->chunk;
    ssize_t count;
    if (left == 0) {
      finish_send(end);
      return;
    }
    sys_pattern(end->send_seed, end->sent, block, size);
    count = send(end->fd, block, size, MSG_NOSIGNAL);
    if (count < 0) {
      if (errno != EAGAIN && errno != EINTR)
        fail(end, sys_error_name(errno));
      return;
    }
    end->sent += (uint64_t)count;
  }
}

static void compare(struct end *end, const unsigned char *bytes, size_t count) {
  static unsigned char expected[BLOCK_BYTES];
  size_t at = 0;

  sys_pattern(end->recv_seed, end->received, expected, count);
  if (memcmp(bytes, expected, count) != 0) {
    while (bytes[at] == expected[at])
      at++;
    end->received += at;
    fail(end, "mismatch");
    return;
  }
  end->received += count;
}

static void finish_recv(struct end *end) {
  if (end->received < end->recv_total && !end->any)
    fail(end, "eof");
  end->recv_done = true;
}

static void turn_recv(struct end *end) {
  static unsigned char block[BLOCK_BYTES];

  for (int i = 0; i < TURN_BLOCKS && !end->recv_done; i++) {
    uint64_t left = end->recv_total - end->received;
    size_t size = end->any || end->eof || left > sizeof block ? sizeof block
                                                              : (size_t)left;
    ssize_t count;
    if (left == 0 && !end->eof && !end->any) {
      end->recv_done = true;
      return;
    }
    count = recv(end->fd, block, size, 0);
    if (count == 0) {
      finish_recv(end);
    } else if (count > 0) {
      if (!end->any && (uint64_t)count > left)
        fail(end, "extra");
      else
        compare(end, block, (size_t)count);
    } else if (errno != EAGAIN && errno != EINTR) {
      fail(end, sys_error_name(errno));
    } else {
      return;
    }
  }
}

/* ---- all of them ----------------------------------------------------------
 */

static void arm(struct pump *pump, struct end *end) {
  struct epoll_event event;
  uint32_t wanted =
      (end->recv_done ? 0 : EPOLLIN) | (end->send_done ? 0 : EPOLLOUT);

  if (wanted == end->armed)
    return;
  memset(&event, 0, sizeof event);
  event.events = wanted;
  event.data.ptr = end;
  if (wanted == 0) {
    epoll_ctl(pump->epoll, EPOLL_CTL_DEL, end->fd, NULL);
    pump->open--;
  } else {
    epoll_ctl(pump->epoll, end->armed == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD,
              end->fd, &event);
    pump->open += end->armed == 0;
  }
  end->armed = wanted;
}

/* Until every end is done or the time is over. */
static void run(lua_State *L, struct pump *pump, double deadline) {
  struct epoll_event events[256];

  for (size_t i = 0; i < pump->count; i++)
    arm(pump, &pump->ends[i]);
  while (pump->open > 0 && sys_left_ms(deadline) > 0) {
    int count = epoll_wait(pump->epoll, events, 256, sys_left_ms(deadline));
    sys_check_watchdog(L);
    for (int i = 0; i < count; i++) {
      struct end *end = events[i].data.ptr;
      if (!end->recv_done && (events[i].events & ~(uint32_t)EPOLLOUT) != 0)
        turn_recv(end);
      if (!end->send_done && (events[i].events & ~(uint32_t)EPOLLIN) != 0)
        turn_send(end);
      arm(pump, end);
    }
  }
  for (size_t i = 0; i < pump->count; i++)
    if (!pump->ends[i].send_done || !pump->ends[i].recv_done)
      fail(&pump->ends[i], "timeout");
}

/* The end described by the table on the stack top. */
static void read_end(lua_State *L, struct end *end, lua_Integer number) {
  int table = lua_gettop(L);

  luaL_checktype(L, table, LUA_TTABLE);
  lua_rawgeti(L, table, 1);
  if (luaL_testudata(L, -1, SYS_SOCKET) == NULL)
    luaL_error(L, "end %I of the pump is not a socket", number);
  end->fd = sys_socket_fd(L, -1);
  lua_pop(L, 1);
  end->send_total = (uint64_t)sys_field_integer(L, table, "send", 0);
  end->send_seed = (uint64_t)sys_field_integer(L, table, "send_seed", number);
  end->recv_seed = (uint64_t)sys_field_integer(L, table, "recv_seed", number);
  end->sent = (uint64_t)sys_field_integer(L, table, "send_from", 0);
  end->received = (uint64_t)sys_field_integer(L, table, "recv_from", 0);
  end->chunk = (size_t)sys_field_integer(L, table, "chunk", BLOCK_BYTES);
  end->fin = sys_field_bool(L, table, "fin");
  end->eof = sys_field_bool(L, table, "eof");
  lua_getfield(L, table, "recv");
  end->any = lua_type(L, -1) == LUA_TSTRING;
  lua_pop(L, 1);
  if (!end->any)
    end->recv_total = (uint64_t)sys_field_integer(L, table, "recv", 0);
  if (end->chunk == 0 || end->chunk > BLOCK_BYTES)
    end->chunk = BLOCK_BYTES;
  end->send_done = end->send_total == 0 && !end->fin;
  end->recv_done = end->recv_total == 0 && !end->eof && !end->any;
}

static void set_number(lua_State *L, const char *key, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, key);
}

static void push_end(lua_State *L, const struct end *end) {
  lua_newtable(L);
  set_number(L, "sent", end->sent);
  set_number(L, "received", end->received);
  if (end->failure != NULL) {
    lua_pushstring(L, end->failure);
    lua_setfield(L, -2, "failure");
  }
}

static void push_result(lua_State *L, const struct pump *pump, double began) {
  uint64_t sent = 0, received = 0, failed = 0;

  lua_newtable(L);
  for (size_t i = 0; i < pump->count; i++) {
    const struct end *end = &pump->ends[i];
    sent += end->sent;
    received += end->received;
    push_end(L, end);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
    if (end->failure != NULL && failed++ == 0) {
      set_number(L, "index", i + 1);
      set_number(L, "at", end->received);
      lua_pushstring(L, end->failure);
      lua_setfield(L, -2, "failure");
    }
  }
  set_number(L, "sent", sent);
  set_number(L, "received", received);
  set_number(L, "failed", failed);
  lua_pushnumber(L, sys_now() - began);
  lua_setfield(L, -2, "seconds");
}

/*
 * pump{ {SOCKET, send = COUNT, send_seed =, send_from =, chunk =, fin = BOOL,
 *                recv = COUNT | "any", recv_seed =, recv_from =,
 *                eof = BOOL}, …,
 *       timeout = SECONDS }
 *
 * A seed is the entry's number where none is given; send_from and recv_from
 * count what was sent and received before, by an earlier pump. Returns totals
 * (sent, received, failed, seconds), each end by its number ({sent, received,
 * failure}), and of the first one that failed: failure, index, at. A failure
 * is "mismatch", "extra", "eof" (too early), "reset", "timeout" or an error's
 * name.
 */
static int pump_all(lua_State *L) {
  double began = sys_now(), deadline;
  struct pump pump;
  int *box;

  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_getfield(L, 1, "timeout");
  deadline = sys_deadline(L, 2);
  memset(&pump, 0, sizeof pump);
  pump.count = lua_rawlen(L, 1);
  pump.ends = lua_newuserdatauv(L, pump.count * sizeof *pump.ends + 1, 0);
  memset(pump.ends, 0, pump.count * sizeof *pump.ends);
  for (size_t i = 0; i < pump.count; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    read_end(L, &pump.ends[i], (lua_Integer)i + 1);
    lua_pop(L, 1);
  }
  box = lua_newuserdatauv(L, sizeof *box, 0); /* a socket, for its __gc */
  *box = pump.epoll = epoll_create1(EPOLL_CLOEXEC);
  luaL_setmetatable(L, SYS_SOCKET);
  run(L, &pump, deadline);
  close(pump.epoll);
  *box = -1;
  push_result(L, &pump, began);
  return 1;
}

void sys_open_pump(lua_State *L) {
  lua_pushcfunction(L, pump_all);
  lua_setfield(L, -2, "pump");
}
