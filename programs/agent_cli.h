/* SPDX-License-Identifier: MIT */
/*
 * What echoserver and expose have in common: an agent run from the command
 * line. The program says how a visitor is served; options, the line for each
 * address, signals and the exit status are here.
 *
 * A token comes from --token-file or the environment (RELAY_TOKEN), never from
 * the command line, which others can see. With an option of TLS the relay has
 * to show a certificate.
 *
 * SIGTERM gives the address up and lets visitors finish, for --drain at most;
 * a second one, SIGINT or SIGHUP ends at once.
 */
#ifndef RELAY_PROGRAMS_AGENT_CLI_H
#define RELAY_PROGRAMS_AGENT_CLI_H

#include <net/if.h>
#include <netinet/in.h>
#include <relay/agent.h>

#include "cli.h"

#define AGENT_CLI_OPTIONS 26
#define AGENT_TICKET_MAX 1024
/* Longer than any token. */
#define AGENT_CLI_TOKEN_MAX 256

struct agent_cli {
  struct cli cli;
  struct cli_log log;
  struct cli_run run;
  relay_agent_options options; /* the program sets name and on_visitor */
  relay_agent *agent;
  struct cli_option table[AGENT_CLI_OPTIONS];
  const char *state; /* the file that keeps the ticket; NULL: none */
  char ticket[AGENT_TICKET_MAX];
  uv_timer_t ticket_due; /* for one that could not be kept */
  int once;
  int mode;
  int data; /* the index in "tls|plain" */
  int tls;
  char host[INET6_ADDRSTRLEN + IF_NAMESIZE]; /* an address, without brackets */
  const char *token_file;
  char token[AGENT_CLI_TOKEN_MAX];
  uint64_t drain_ms;
  bool ignores_hangup;
  bool draining;
  bool closing;
  int status;
  void *owner; /* the program's */
};

/* Prepares defaults and the table of options, to which the program adds its
   own in cli.tables[1]. `on_visitor` is handed the struct agent_cli. */
void agent_cli_init(struct agent_cli *self, const char *program,
                    void (*on_visitor)(void *data, relay_agent *agent,
                                       const relay_visitor_info *visitor));

/* Reads RELAYHOST RELAYPORT and what follows into operands. CLI_GO or the
   status to exit with. */
int agent_cli_parse(struct agent_cli *self, int argc, char **argv,
                    const char **operands);

/* Runs the agent to its end. The exit status. */
int agent_cli_run(struct agent_cli *self);

#endif
