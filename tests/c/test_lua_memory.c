/* SPDX-License-Identifier: MIT */
/*
 * A policy short of memory at every point: the cap is raised bit by bit, so
 * that each allocation of loading, starting and each hook is the one that
 * fails, once. Whatever happens is an error that is told; nothing is lost.
 */
#include "check.h"

#ifdef RELAY_WITH_LUA
#include <relay/lua.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#define STEP_BYTES 331

static const char script[] =
    "local relay = require 'relay'\n"
    "local t, socket = {}, require 'socket.core'\n"
    "local function speak()\n"
    "  local s = socket.tcp4() s:bind('127.0.0.1', 0) s:listen()\n"
    "  local host, port = s:getsockname()\n"
    "  local c = socket.connect(host, port)\n"
    "  local served = s:accept()\n"
    "  c:send(('x'):rep(2500) .. '\\n') served:receive()\n"
    "  c:settimeout(0.001) c:receive('*a') socket.select({c}, {c}, 0.001)\n"
    "  socket.protect(function() socket.newtry()(nil, 'no') end)()\n"
    "  socket.dns.getaddrinfo('127.0.0.1')\n"
    "  c:close()\n"
    "end\n"
    "local co = coroutine.wrap(function() while true do relay.sleep(0)\n"
    "  coroutine.yield(1) end end)\n"
    "return {\n"
    "  options = { max_agents = 5, ports = { 1, 2 }, idle = 0.5 },\n"
    "  start = function()\n"
    "    for i = 1, 40 do t[i] = { tostring(i) } end\n"
    "    relay.cidr { '10.0.0.0/8', '::1' }\n"
    "    relay.kv.set('k', 'v', 1) relay.kv.incr('n')\n"
    "    relay.every(0.001, function() t[#t + 1] = {} co() end)\n"
    "    relay.spawn(function(a) co() t[#t + 1] = a .. a end, 'x')\n"
    "    speak()\n"
    "    relay.sleep(0)\n"
    "  end,\n"
    "  save = function() return t end,\n"
    "  visitor = function(conn, agents)\n"
    "    conn.data = { #agents } t[#t + 1] = tostring(conn)\n"
    "    relay.log('info', '%s %d', conn, #t)\n"
    "    if #t % 2 == 0 then relay.sleep(0) end\n"
    "    return false, 'no ' .. #t\n"
    "  end,\n"
    "  peek = function(conn, bytes) return #bytes + 1 end,\n"
    "  close = function(conn) t[#t + 1] = conn.addr .. conn.reason end,\n"
    "  log = function(event) return event.level .. event.msg end,\n"
    "}\n";

/* Where luv is not installed it finds that out again and again. */
static const char luv_script[] =
    "local relay = require 'relay'\n"
    "local ok, uv = pcall(require, 'luv')\n"
    "if not ok then return {} end\n"
    "local kinds = { 'timer', 'tcp', 'udp', 'idle', 'check', 'prepare',\n"
    "  'fs_event', 'fs_poll' }\n"
    "return {\n"
    "  start = function()\n"
    "    for i = 1, 40 do\n"
    "      local handle = uv['new_' .. kinds[1 + i % #kinds]]()\n"
    "      if i % 4 == 0 then handle:close(function() return i .. 'x' end) "
    "end\n"
    "    end\n"
    "    uv.new_async(function() end):send()\n"
    "    uv.new_timer():start(0, 1, function() return {} .. 'x' end)\n"
    "    uv.fs_stat('/', function(_, stat) relay.log('info', stat.type) end)\n"
    "    relay.wait(function(wake) uv.fs_open('/dev/null', 'r', 0, wake) end)\n"
    "  end,\n"
    "}\n";

static unsigned closed, lines, loaded, started;

static void on_closed(void *data) {
  (void)data;
  closed++;
}

static void on_line(void *data, relay_log_level level, const char *text,
                    size_t length) {
  (void)data;
  (void)level;
  lines += length == strlen(text);
}

static void on_record(void *data, const relay_log_record *record) {
  char text[2048];

  (void)data;
  lines += relay_log_format(record, RELAY_LOG_TEXT, text, sizeof(text)) > 0;
}

static void call_hooks(const relay_policy *policy, uint64_t call) {
  relay_agent_info agents[2] = {{sizeof(*agents), 1, "a", "::1", 9, 0, 0, ""},
                                {sizeof(*agents), 2, "b", "::1", 9, 0, 0, ""}};
  relay_conn_info conn = {sizeof(conn), call, 1, "192.0.2.1", 5, 6, 7, 8, 9, 0,
                          NULL};
  relay_verdict verdict = {.size = sizeof(verdict)};

  policy->visitor(policy->data, call, &conn, agents, 2, &verdict);
  if (verdict.answer == RELAY_DEFER)
    policy->cancel(policy->data, call);
  memset(&verdict, 0, sizeof(verdict));
  policy->peek(policy->data, call + 1, &conn, "bytes", 5, 0, &verdict);
  policy->close(policy->data, &conn);
  policy->agent_gone(policy->data, &agents[0], UV_EOF);
  policy->tick(policy->data, 1);
}

static void on_started(void *data, const char *error) {
  relay_lua_t *lua = data;

  started += error == NULL;
  for (uint64_t call = 100; call < 140; call += 10)
    call_hooks(relay_lua_policy(lua), call);
  relay_lua_reload(lua);
  call_hooks(relay_lua_policy(lua), 200);
}

static void on_patience(uv_timer_t *timer) {
  relay_lua_close(timer->data, on_closed, NULL);
  uv_close((uv_handle_t *)timer, NULL);
}

static void live(const char *path, size_t cap, uint64_t patience_ms) {
  relay_lua_options options;
  char error[256];
  relay_lua_t *lua;
  uv_loop_t loop;
  uv_timer_t timer;
  int err;

  uv_loop_init(&loop);
  relay_lua_options_init(&options, sizeof(options));
  options.script = path;
  options.memory_bytes = cap;
  options.log = on_record;
  options.line = on_line;
  err = relay_lua_new(&lua, &loop, &options, error, sizeof(error));
  if (err != 0) {
    CHECK(error[0] != '\0');
  } else {
    loaded++;
    uv_timer_init(&loop, &timer);
    timer.data = lua;
    uv_timer_start(&timer, on_patience, patience_ms, 0);
    relay_lua_start(lua, on_started, lua);
  }
  uv_run(&loop, UV_RUN_DEFAULT);
  CHECK_INT(0, uv_loop_close(&loop));
}

static int next_fd(void) {
  int fd = dup(STDIN_FILENO);

  close(fd);
  return fd;
}

/* From cap to cap; the number of lives. */
static unsigned live_often(const char *text, size_t cap, size_t end,
                           uint64_t patience_ms) {
  char path[] = "/tmp/relay-policy.XXXXXX";
  int fd = mkstemp(path);
  unsigned lives = 0;
  int before;

  CHECK(fd >= 0);
  CHECK_INT(strlen(text), write(fd, text, strlen(text)));
  close(fd);
  live(path, end, patience_ms); /* what libuv opens once is there now */
  before = next_fd();
  closed = lines = loaded = started = 0;
  for (; cap < end; cap += STEP_BYTES, lives++)
    live(path, cap, patience_ms);
  unlink(path);
  CHECK_INT(before, next_fd());
  fprintf(stderr, "%u lives, %u loaded, %u started, %u lines\n", lives, loaded,
          started, lines);
  return lives;
}

TEST(survives_every_cap) {
  unsigned lives = live_often(script, 0, 160000, 8);

  /* The sweep began below what loading takes and ended above all of it. */
  CHECK(loaded > 20 && loaded < lives);
  CHECK(started > 20 && started < loaded);
  CHECK_INT(loaded, closed);
  CHECK(lines > 0);
}

TEST(survives_every_cap_with_luv) {
  unsigned lives = live_often(luv_script, 30000, 160000, 5);

  CHECK(loaded > 20 && loaded < lives);
  CHECK(started > 20 && started <= loaded);
  CHECK_INT(loaded, closed);
}

int main(void) {
  RUN(survives_every_cap);
  RUN(survives_every_cap_with_luv);
  return check_report();
}
#else
int main(void) {
  printf("0 passed, 0 failed, 1 skipped\n");
  return 0;
}
#endif
