/* SPDX-License-Identifier: MIT */
/*
 * A host program outside the tree that has a Lua state: its table of hooks is
 * the policy of a relay; an agent asks for an address, and is told the host
 * name that the table says.
 */
#include <lauxlib.h>
#include <lualib.h>
#include <relay/agent.h>
#include <relay/lua.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

struct host {
  relay_t *relay;
  relay_lua_t *lua;
  unsigned port;
};

static void on_visitor(void *data, relay_agent *agent,
                       const relay_visitor_info *visitor) {
  (void)data;
  relay_agent_serve_echo(agent, visitor->id);
}

static void on_established(void *data, relay_agent *agent, const char *name,
                           unsigned port, int fresh) {
  struct host *host = data;

  (void)fresh;
  printf("address: %s %u\n", name, port);
  host->port = strcmp(name, "www.example.org") == 0 ? port : 0;
  relay_agent_close(agent, NULL, NULL);
  relay_close(host->relay, NULL, NULL);
  relay_lua_attach(host->lua, NULL, NULL, 0);
  relay_lua_close(host->lua, NULL, NULL);
}

static void on_started(void *data, const char *error) {
  if (error != NULL)
    fprintf(stderr, "%s\n", error);
  *(int *)data = error == NULL;
}

static int fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 1;
}

int main(void) {
  struct host host = {NULL, NULL, 0};
  lua_State *L = luaL_newstate();
  relay_lua_options hooks;
  relay_options options;
  relay_agent_options wants;
  relay_agent *agent;
  uv_loop_t loop;
  char error[256];
  int started = 0;

  luaL_openlibs(L);
  if (uv_loop_init(&loop) != 0 ||
      luaL_dostring(L, "host = 'www.example.org'\n"
                       "return { allocate = function()\n"
                       "  return { host = host } end }") != LUA_OK)
    return 1;
  relay_lua_options_init(&hooks, sizeof hooks);
  hooks.state = L;
  if (relay_lua_new(&host.lua, &loop, &hooks, error, sizeof error) != 0)
    return fail("policy", error);
  relay_lua_start(host.lua, on_started, &started);
  relay_options_init(&options, sizeof options);
  options.listen_host = "127.0.0.1";
  options.policy = relay_lua_policy(host.lua);
  if (!started || relay_new(&host.relay, &loop, &options) != 0)
    return fail("relay", "it does not start");
  relay_lua_attach(host.lua, host.relay, NULL, 0);
  relay_agent_options_init(&wants, sizeof wants);
  wants.host = "127.0.0.1";
  wants.port = relay_port(host.relay);
  wants.data = &host;
  wants.on_visitor = on_visitor;
  wants.on_established = on_established;
  if (relay_agent_new(&agent, &loop, &wants) != 0)
    return fail("agent", "it does not start");
  uv_run(&loop, UV_RUN_DEFAULT);
  lua_close(L);
  return uv_loop_close(&loop) != 0 || host.port == 0;
}
