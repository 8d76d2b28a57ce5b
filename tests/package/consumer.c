/* SPDX-License-Identifier: MIT */
/*
 * A host program outside the tree: a relay and an agent that echoes, on its
 * own loop; waits until the agent has its address, and closes both.
 */
#include <relay/agent.h>
#include <relay/relay.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

struct host {
  relay_t *relay;
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
  host->port = port;
  relay_agent_close(agent, NULL, NULL);
  relay_close(host->relay, NULL, NULL);
}

int main(void) {
  struct host host = {NULL, 0};
  relay_options options;
  relay_agent_options wants;
  relay_agent *agent;
  uv_loop_t loop;
  int error;

  if (strcmp(relay_version(), RELAY_VERSION) != 0 || uv_loop_init(&loop) != 0)
    return 1;
  relay_options_init(&options, sizeof options);
  options.listen_host = "127.0.0.1";
  error = relay_new(&host.relay, &loop, &options);
  if (error != 0) {
    fprintf(stderr, "relay: %s\n", relay_strerror(error));
    return 1;
  }
  relay_agent_options_init(&wants, sizeof wants);
  wants.host = "127.0.0.1";
  wants.port = relay_port(host.relay);
  wants.data = &host;
  wants.on_visitor = on_visitor;
  wants.on_established = on_established;
  error = relay_agent_new(&agent, &loop, &wants);
  if (error != 0) {
    fprintf(stderr, "agent: %s\n", relay_strerror(error));
    return 1;
  }
  uv_run(&loop, UV_RUN_DEFAULT);
  return uv_loop_close(&loop) != 0 || host.port == 0;
}
