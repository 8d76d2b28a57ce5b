/* SPDX-License-Identifier: MIT */
/*
 * A policy in a Lua state that the host has: hooks see what the host put there,
 * and once all is closed the state is as it was before.
 */
#include "check.h"

#ifdef RELAY_WITH_LUA
#include <lauxlib.h>
#include <lualib.h>
#include <relay/lua.h>

#include "host.h"

/* A host with a state. Its allocator counts, and may fail. */
struct lua_host {
  struct host host;
  lua_State *L;
  relay_lua_t *lua;
  relay_lua_options options;
  char error[512];
  char log[8192];
  unsigned lua_closed, starts;
  bool start_failed;
  size_t bytes;
  unsigned countdown; /* allocations until one fails; 0: none does */
  bool once;          /* and the next ones do not */
};

/* ---- the host's state ------------------------------------------------- */

static void *allocate(void *data, void *block, size_t old_size, size_t size) {
  struct lua_host *h = data;
  size_t old = block != NULL ? old_size : 0;

  if (size == 0) {
    h->bytes -= old;
    free(block);
    return NULL;
  }
  if (size > old && h->countdown != 0 && --h->countdown == 0) {
    h->countdown = h->once ? 0 : 1;
    return NULL;
  }
  h->bytes += size - old;
  return realloc(block, size);
}

/* Says how it came to that; the process then aborts. */
static int on_panic(lua_State *L) {
  fprintf(stderr, "panic: %s\n", lua_tostring(L, -1));
  return 0;
}

static void run(struct lua_host *h, const char *text) {
  if (luaL_dostring(h->L, text) != LUA_OK) {
    CHECK_STR("no error", lua_tostring(h->L, -1));
    lua_pop(h->L, 1);
  }
}

/* The value of an expression, as text. */
static const char *value_of(struct lua_host *h, const char *expression) {
  static char text[512];

  lua_pushfstring(h->L, "return tostring(%s)", expression);
  if (luaL_dostring(h->L, lua_tostring(h->L, -1)) != LUA_OK)
    snprintf(text, sizeof(text), "error: %s", lua_tostring(h->L, -1));
  else
    snprintf(text, sizeof(text), "%s", lua_tostring(h->L, -1));
  lua_settop(h->L, 0);
  return text;
}

static int host_double(lua_State *L) {
  lua_pushinteger(L, 2 * luaL_checkinteger(L, 1));
  return 1;
}

/* The names in the registry, of globals, modules and what `package` has. */
static char *names_of(lua_State *L) {
  static const char text[] =
      "local registry, names = ..., {}\n"
      "for _, t in ipairs { registry, _G, package, package.loaded,\n"
      "    package.preload } do\n"
      "  for key, value in pairs(t) do\n"
      "    if math.type(key) == nil then\n"
      "      names[#names + 1] = key .. '=' ..\n"
      "        (type(value) == 'function' and tostring(value) or type(value))\n"
      "    end\n"
      "  end\n"
      "end\n"
      "table.sort(names) return table.concat(names, '\\n')\n";
  char *names;

  CHECK_INT(LUA_OK, luaL_loadstring(L, text));
  lua_pushvalue(L, LUA_REGISTRYINDEX);
  CHECK_INT(LUA_OK, lua_pcall(L, 1, 1, 0));
  names = strdup(lua_tostring(L, -1));
  lua_pop(L, 1);
  return names;
}

/* How many values the registry holds under numbers. */
static unsigned refs_of(lua_State *L) {
  unsigned count = 0;

  lua_pushnil(L);
  while (lua_next(L, LUA_REGISTRYINDEX) != 0) {
    count += lua_isinteger(L, -2) && !lua_isnumber(L, -1);
    lua_pop(L, 1);
  }
  return count;
}

/* ---- a life ----------------------------------------------------------- */

static void on_record(void *data, const relay_log_record *record) {
  struct lua_host *h = data;
  size_t length = strlen(h->log);

  if (length + 2 >= sizeof(h->log))
    return;
  relay_log_format(record, RELAY_LOG_TEXT, h->log + length,
                   sizeof(h->log) - length - 1);
  memcpy(h->log + strlen(h->log), "\n", 2);
}

static void on_started(void *data, const char *error) {
  struct lua_host *h = data;

  h->starts++;
  h->start_failed = error != NULL;
}

static void on_lua_closed(void *data) {
  ((struct lua_host *)data)->lua_closed++;
}

static void prepare(struct lua_host *h) {
  memset(h, 0, sizeof(*h));
  host_prepare(&h->host);
  h->L = lua_newstate(allocate, h);
  CHECK(h->L != NULL);
  lua_atpanic(h->L, on_panic);
  memset(lua_getextraspace(h->L), 0x5a, LUA_EXTRASPACE);
  luaL_openlibs(h->L);
  lua_register(h->L, "double", host_double);
  run(h, "seen, kept, total, closed = {}, {}, 0, false");
  relay_lua_options_init(&h->options, sizeof(h->options));
  h->options.state = h->L;
  h->options.log = on_record;
  h->options.log_data = h;
}

/* For another life in the same state. */
static void revive(struct lua_host *h) {
  relay_options options = h->host.options;

  uv_loop_close(&h->host.loop);
  host_prepare(&h->host);
  h->host.options = options;
  h->starts = h->lua_closed = 0;
}

static int load(struct lua_host *h) {
  return relay_lua_new(&h->lua, &h->host.loop, &h->options, h->error,
                       sizeof(h->error));
}

/* The hooks that the text returns, given to a relay with an agent. */
static void open_with(struct lua_host *h, const char *text) {
  if (text != NULL && !CHECK_INT(LUA_OK, luaL_dostring(h->L, text)))
    exit(1);
  CHECK_INT(0, load(h));
  relay_lua_start(h->lua, on_started, h);
  UNTIL(&h->host, h->starts == 1);
  CHECK(!h->start_failed);
  h->host.options.policy = relay_lua_policy(h->lua);
  h->host.options.log = on_record;
  h->host.options.log_data = h;
  host_start(&h->host);
  CHECK_INT(0, relay_lua_attach(h->lua, h->host.relay, NULL, 0));
  UNTIL(&h->host, h->host.established == 1);
}

static void close_lua(struct lua_host *h) {
  if (h->lua == NULL)
    return;
  relay_lua_attach(h->lua, NULL, NULL, 0);
  relay_lua_close(h->lua, on_lua_closed, h);
  h->lua = NULL;
}

static void finish(struct lua_host *h) {
  host_close_agent(&h->host);
  host_close_relay(&h->host);
  close_lua(h);
  CHECK_INT(0, uv_run(&h->host.loop, UV_RUN_DEFAULT));
  CHECK_INT(1, h->lua_closed);
}

static void end(struct lua_host *h) {
  CHECK_INT(0, uv_loop_close(&h->host.loop));
  lua_close(h->L);
  CHECK_INT(0, h->bytes);
}

/* ---- tests ------------------------------------------------------------ */

static const char hooks[] =
    "return {\n"
    "  visitor = function(conn)\n"
    "    local relay = require 'relay'\n"
    "    total = total + double(1)\n"
    "    seen[#seen + 1] = conn\n"
    "    if total == 4 then relay.sleep(0.001) return false, 'enough' end\n"
    "    if total == 6 then while true do end end\n"
    "  end,\n"
    "  close = function(conn) closed = conn.bytes_in end,\n"
    "}\n";

TEST(hooks_see_what_the_host_has) {
  struct lua_host h;
  size_t i;

  prepare(&h);
  open_with(&h, hooks);
  CHECK_INT(1, lua_gettop(h.L)); /* the table is still there */
  lua_settop(h.L, 0);
  host_visit(&h.host, h.host.port);
  UNTIL(&h.host, strcmp(value_of(&h, "closed"), "12") == 0);
  host_visit_refused(&h.host, h.host.port);
  CHECK_STR("4", value_of(&h, "total"));
  CHECK(strstr(h.log, "enough") != NULL);
  host_visit_refused(&h.host, h.host.port); /* an endless loop */
  CHECK(strstr(h.log, "of CPU time") != NULL);
  host_visit(&h.host, h.host.port);
  CHECK_STR("8", value_of(&h, "total"));
  /* The module is there for the host too, outside of hooks. */
  CHECK_STR("1", value_of(&h, "#require 'relay'.agents()"));
  CHECK_STR("false", value_of(&h, "pcall(require 'relay'.sleep, 1)"));
  CHECK(lua_gethook(h.L) == NULL);
  for (i = 0; i < LUA_EXTRASPACE; i++)
    CHECK_INT(0x5a, ((char *)lua_getextraspace(h.L))[i]);
  finish(&h);
  end(&h);
}

/* One life after the other, in the same state. */
TEST(closing_leaves_nothing_behind) {
  struct lua_host h;
  unsigned refs, round;
  char *before, *after;

  prepare(&h);
  run(&h, "package.loaded.relay = 'the host has one of that name'");
  lua_gc(h.L, LUA_GCCOLLECT);
  free(names_of(h.L)); /* Lua notes something itself, for long texts */
  before = names_of(h.L);
  refs = refs_of(h.L);
  for (round = 0; round < 3; round++) {
    revive(&h);
    open_with(&h, hooks);
    lua_pop(h.L, 1);
    run(&h, "kept.module = require 'relay'\n"
            "kept.timer = kept.module.every(1, print) total = 0");
    host_visit(&h.host, h.host.port);
    run(&h, "kept.conn = seen[#seen]");
    finish(&h);
    /* What was kept of it says that it is over. */
    CHECK(strstr(value_of(&h, "kept.conn.alive"), "error: ") != NULL);
    CHECK(strstr(value_of(&h, "kept.timer:stop()"), "error: ") != NULL);
    CHECK(strstr(value_of(&h, "kept.module.agents()"),
                 "there is no policy any more") != NULL);
    run(&h, "kept, seen, closed = {}, {}, false");
    lua_gc(h.L, LUA_GCCOLLECT);
    CHECK_INT(refs, refs_of(h.L));
    after = names_of(h.L);
    CHECK_STR(before, after);
    free(after);
  }
  free(before);
  end(&h);
}

TEST(a_state_has_one_at_a_time) {
  struct lua_host h;
  relay_lua_t *first;

  prepare(&h);
  lua_newtable(h.L);
  CHECK_INT(0, load(&h));
  first = h.lua;
  CHECK_INT(UV_EBUSY, load(&h));
  CHECK(h.error[0] != '\0');
  h.lua = first;
  close_lua(&h);
  CHECK_INT(0, uv_run(&h.host.loop, UV_RUN_DEFAULT));
  CHECK_INT(0, load(&h));
  close_lua(&h);
  CHECK_INT(0, uv_run(&h.host.loop, UV_RUN_DEFAULT));
  CHECK_INT(2, h.lua_closed);
  CHECK_INT(1, lua_gettop(h.L));
  end(&h);
}

TEST(what_is_wrong_is_said) {
  static const struct {
    const char *value;
    int error;
    const char *words;
  } cases[] = {
      {"5", UV_EINVAL, "invalid argument"},
      {"{ visitr = print }", RELAY_EHOOK,
       "policy: unknown hook 'visitr' (did you mean 'visitor'?)"},
      {"{ visitor = 5 }", RELAY_EHOOK, "'visitor' must be a function"},
      {"{ print }", RELAY_EHOOK, "it must return a table of hooks by name"},
      {"{ options = { a = print } }", RELAY_EHOOK, "option 'a' must be"},
  };
  struct lua_host h;
  unsigned refs;
  size_t i;

  prepare(&h);
  CHECK_INT(UV_EINVAL, load(&h)); /* nothing on the stack */
  refs = refs_of(h.L);
  for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    lua_pushfstring(h.L, "return %s", cases[i].value);
    CHECK_INT(LUA_OK, luaL_dostring(h.L, lua_tostring(h.L, -1)));
    CHECK_INT(cases[i].error, load(&h));
    CHECK(strstr(h.error, cases[i].words) != NULL);
    CHECK_INT(0, uv_run(&h.host.loop, UV_RUN_DEFAULT));
    CHECK_INT(2, lua_gettop(h.L));
    lua_settop(h.L, 0);
    CHECK_INT(refs, refs_of(h.L));
  }
  h.options.state = NULL; /* neither a state nor a script */
  CHECK_INT(UV_EINVAL, load(&h));
  CHECK_INT(0, uv_run(&h.host.loop, UV_RUN_DEFAULT));
  end(&h);
}

/* ---- waiting ---------------------------------------------------------- */

static const char waits[] =
    "return {\n"
    "  visitor = function(conn)\n"
    "    local relay = require 'relay'\n"
    "    local co = coroutine.create(function() relay.sleep(0) end)\n"
    "    local _, why = coroutine.resume(co)\n"
    "    kept.why = why\n"
    "    kept.woken = relay.wait(function(wake) kept.wake = wake end)\n"
    "    return kept.woken\n"
    "  end,\n"
    "}\n";

/* The host wakes a hook, by calling what the hook has left for it. */
TEST(the_host_wakes_a_hook) {
  struct lua_host h;
  int fd;

  prepare(&h);
  open_with(&h, waits);
  lua_settop(h.L, 0);
  fd = visitor_open(h.host.port);
  UNTIL(&h.host, strcmp(value_of(&h, "kept.wake"), "nil") != 0);
  CHECK_STR("true", value_of(&h, "kept.wake(false)"));
  CHECK_STR("nil", value_of(&h, "kept.woken")); /* from the loop, not here */
  CHECK_INT('r', visitor_ends(&h.host, fd));
  CHECK_STR("false", value_of(&h, "kept.woken"));
  CHECK(strstr(value_of(&h, "kept.why"),
               "relay.sleep cannot wait in a coroutine within a hook") != NULL);
  close(fd);
  finish(&h);
  end(&h);
}

/* ---- reload ----------------------------------------------------------- */

static void write_script(const char *path, const char *text) {
  FILE *file = fopen(path, "w");

  CHECK(file != NULL);
  CHECK(fputs(text, file) >= 0);
  CHECK_INT(0, fclose(file));
}

TEST(a_table_cannot_be_reloaded) {
  struct lua_host h;

  prepare(&h);
  open_with(&h, "return {}");
  CHECK_INT(UV_ENOTSUP, relay_lua_reload(h.lua));
  CHECK_STR("nil", value_of(&h, "require 'relay'.reload()"));
  finish(&h);
  end(&h);
}

/* Two scripts are in the state while the first finishes what it began. */
TEST(a_script_is_reloaded_in_it) {
  struct lua_host h;
  char path[] = "/tmp/relay-embed.XXXXXX";
  unsigned refs;
  int fd, temporary = mkstemp(path);

  CHECK(temporary >= 0);
  close(temporary);
  prepare(&h);
  lua_gc(h.L, LUA_GCCOLLECT);
  refs = refs_of(h.L);
  h.options.script = path;
  write_script(path, "local relay = require 'relay'\n"
                     "return {\n"
                     "  visitor = function(conn)\n"
                     "    kept.asked = true\n"
                     "    relay.wait(function(w) kept.wake = w end)\n"
                     "    conn.data = total kept.by = 'first'\n"
                     "    kept.listens = pcall(relay.agents)\n"
                     "  end,\n"
                     "  save = function() return { n = double(21) } end,\n"
                     "  stop = function(why) kept.stop = why end,\n"
                     "}\n");
  open_with(&h, NULL);
  fd = visitor_open(h.host.port);
  visitor_say(fd, HELLO);
  UNTIL(&h.host, strcmp(value_of(&h, "kept.asked"), "true") == 0);
  write_script(path, "return {");
  CHECK_INT(0, relay_lua_reload(h.lua));
  UNTIL(&h.host, strstr(h.log, "policy not reloaded") != NULL);
  write_script(path, "return { start = function(prev) kept.n = prev.n end,\n"
                     "  close = function(conn) kept.close = true end }\n");
  CHECK_INT(0, relay_lua_reload(h.lua));
  UNTIL(&h.host, strstr(h.log, "policy reloaded") != NULL);
  CHECK_STR("42", value_of(&h, "kept.n"));
  CHECK_STR("reload", value_of(&h, "kept.stop"));
  run(&h, "kept.wake()");
  visitor_hears(&h.host, fd, HELLO);
  CHECK_STR("first", value_of(&h, "kept.by"));
  visitor_close(fd, false);
  UNTIL(&h.host, strcmp(value_of(&h, "kept.close"), "true") == 0);
  finish(&h);
  run(&h, "kept = {}");
  lua_gc(h.L, LUA_GCCOLLECT);
  CHECK_INT(refs, refs_of(h.L));
  unlink(path);
  end(&h);
}

/* ---- memory ----------------------------------------------------------- */

static void call_hooks(struct lua_host *h, uint64_t call) {
  const relay_policy *policy = relay_lua_policy(h->lua);
  relay_agent_info agent = {sizeof(agent), 1, "a", "::1", 9, 0, 0, ""};
  relay_conn_info conn = {sizeof(conn), call, 1, "192.0.2.1", 5, 6, 7, 8, 9, 0,
                          NULL};
  relay_verdict verdict = {.size = sizeof(verdict)};

  policy->visitor(policy->data, call, &conn, &agent, 1, &verdict);
  if (verdict.answer == RELAY_DEFER)
    policy->cancel(policy->data, call);
  policy->close(policy->data, &conn);
  policy->tick(policy->data, 1);
}

/* Whether it could be loaded. */
static bool live_short_of_memory(unsigned at, bool once) {
  struct lua_host h;
  int err;

  prepare(&h);
  CHECK_INT(LUA_OK, luaL_dostring(h.L, waits));
  h.countdown = at;
  h.once = once;
  err = load(&h);
  if (err == 0) {
    relay_lua_start(h.lua, on_started, &h);
    call_hooks(&h, 100);
    call_hooks(&h, 200);
    uv_run(&h.host.loop, UV_RUN_NOWAIT);
  } else {
    CHECK(h.error[0] != '\0');
    h.lua = NULL;
  }
  close_lua(&h);
  uv_run(&h.host.loop, UV_RUN_DEFAULT);
  h.countdown = 0;
  CHECK_INT(1, lua_gettop(h.L));
  CHECK_STR("nil", value_of(&h, "package.loaded.relay"));
  end(&h);
  return err == 0;
}

/* The host's allocator fails, once or from then on until all is closed: errors
   are told, and nothing panics or is lost. */
TEST(no_failed_allocation_panics) {
  unsigned at, loaded = 0;

  for (at = 2; at < 400; at++) {
    loaded += live_short_of_memory(at, false);
    live_short_of_memory(at, true);
  }
  CHECK(loaded > 20 && loaded < at - 2);
}

int main(void) {
  RUN(hooks_see_what_the_host_has);
  RUN(closing_leaves_nothing_behind);
  RUN(a_state_has_one_at_a_time);
  RUN(what_is_wrong_is_said);
  RUN(the_host_wakes_a_hook);
  RUN(a_table_cannot_be_reloaded);
  RUN(a_script_is_reloaded_in_it);
  RUN(no_failed_allocation_panics);
  return check_report();
}
#else
int main(void) {
  printf("0 passed, 0 failed, 1 skipped\n");
  return 0;
}
#endif
