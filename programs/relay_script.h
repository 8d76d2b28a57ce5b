/* SPDX-License-Identifier: MIT */
/*
 * The policy script of the relay program: the options that name it, the
 * options that it sets in turn, and --check. The command line wins.
 */
#ifndef RELAY_PROGRAMS_RELAY_SCRIPT_H
#define RELAY_PROGRAMS_RELAY_SCRIPT_H

#include <relay/relay.h>

#include "cli.h"
#include "confine.h"

struct script {
  const char *path; /* NULL: none */
  int check;
  int unsafe;
  uint64_t memory_bytes;
  uint64_t budget_ms;
  struct relay_lua *lua;
  char **arguments;
  int argument_count;
};

#define SCRIPT_OPTIONS(script, options)                                        \
  {"script", "FILE", CLI_TEXT, &(script)->path, "policy, in Lua", "none",      \
   0,        0,      NULL},                                                    \
      {"check",                                                                \
       NULL,                                                                   \
       CLI_FLAG,                                                               \
       &(script)->check,                                                       \
       "only check the script, and say what it hooks",                         \
       NULL,                                                                   \
       0,                                                                      \
       0,                                                                      \
       NULL},                                                                  \
      {"unsafe",                                                               \
       NULL,                                                                   \
       CLI_FLAG,                                                               \
       &(script)->unsafe,                                                      \
       "the script has all of the standard library",                           \
       NULL,                                                                   \
       0,                                                                      \
       0,                                                                      \
       NULL},                                                                  \
      {"script-memory",                                                        \
       "SIZE",                                                                 \
       CLI_SIZE,                                                               \
       &(script)->memory_bytes,                                                \
       "most that the script may hold",                                        \
       NULL,                                                                   \
       0,                                                                      \
       0,                                                                      \
       NULL},                                                                  \
      {"script-budget",                                                        \
       "TIME",                                                                 \
       CLI_TIME,                                                               \
       &(script)->budget_ms,                                                   \
       "CPU time of one hook, its waiting not counted",                        \
       NULL,                                                                   \
       0,                                                                      \
       0,                                                                      \
       NULL},                                                                  \
      {"hook-agent",                                                           \
       "TIME",                                                                 \
       CLI_TIME,                                                               \
       &(options)->hook_agent_ms,                                              \
       "longest wait in auth and allocate",                                    \
       NULL,                                                                   \
       0,                                                                      \
       0,                                                                      \
       NULL},                                                                  \
  {                                                                            \
    "hook-visitor", "TIME", CLI_TIME, &(options)->hook_visitor_ms,             \
        "longest wait in visitor and peek", NULL, 0, 0, NULL                   \
  }

void script_init(struct script *script);

/* Reads the command line without the script's options, to find the script.
   CLI_GO or a status. */
int script_find(const struct cli *cli, int argc, char **argv,
                const char **operands);

/* If there is a script, loads it on `loop`, reads its options, and then the
   command line again. CLI_GO or a status. */
int script_load(struct script *script, uv_loop_t *loop, const struct cli *cli,
                struct cli_log *log, int argc, char **argv,
                const char **operands);

/* What it is seen to need of the process. */
void script_needs(const struct script *script, struct confine *confine);
/* Once it is confined: the script is told what it cannot have. */
void script_confined(const struct script *script,
                     const struct confine *confine);

/* To be called last: options point into what this frees. */
void script_free(struct script *script);

/* Says what --check found. */
void script_report(const struct script *script);

#endif
