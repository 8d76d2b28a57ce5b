/* SPDX-License-Identifier: MIT */
/*
 * echoserver: gets a public address from a relay and sends every byte that
 * comes in through it back to its sender.
 */
#include <relay/agent.h>

#include "agent_cli.h"

static void on_visitor(void *data, relay_agent *agent,
                       const relay_visitor_info *visitor) {
  (void)data;
  /* It can only fail if the visitor has left. */
  (void)relay_agent_serve_echo(agent, visitor->id);
}

int main(int argc, char **argv) {
  static const char *const names[] = {"RELAYHOST", "RELAYPORT", NULL};
  const char *operands[2];
  struct agent_cli self;

  agent_cli_init(&self, "echoserver", on_visitor);
  self.options.name = "echo";
  self.cli.operands = names;
  self.cli.about =
      "Gets a public address from the relay at RELAYHOST:RELAYPORT, prints\n"
      "'established relay address: (HOST, PORT)', and sends every byte that\n"
      "comes in through it back to its sender.";
  int status = agent_cli_parse(&self, argc, argv, operands);
  return status != CLI_GO ? status : agent_cli_run(&self);
}
