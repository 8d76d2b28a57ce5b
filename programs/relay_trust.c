/* SPDX-License-Identifier: MIT */
/* See relay_trust.h. */
#include "relay_trust.h"

#include <string.h>

#define ERROR_MAX 1024

void trust_list(struct trust *trust, relay_options *options,
                struct cli_option *table) {
  const struct cli_option trust_options[] = {
      {"tokens", "FILE", CLI_TEXT, &options->tokens,
       "who may ask for an address", "anyone", 0, 0, NULL},
      {"allow-plain", NULL, CLI_FLAG, &options->plain,
       "no encryption of visitors' bytes for tokens that may", NULL, 0, 0,
       NULL},
      {"max-unproven", "N", CLI_NUMBER, &options->max_unproven,
       "connections that have not said who they are", NULL, 1, 1000000, NULL},
      {"max-unproven-per-source", "N", CLI_NUMBER,
       &options->max_unproven_per_source,
       "of those from one IPv4 address or IPv6 /64",
       "a quarter of them with penalties, else all", 1, 1000000, NULL},
      {"penalties", "WHERE", CLI_CHOICE, &trust->penalties,
       "faults are answered late (auto: with --tokens)", NULL, 0, 0,
       "auto|on|off"},
      {"penalty", "TIME", CLI_TIME, &options->penalty_ms,
       "most that such an answer waits", NULL, 0, 0, NULL},
      {"penalty-half-life", "TIME", CLI_TIME, &options->penalty_half_life_ms,
       "in which half of a source's faults are forgotten", "never", 0, 0, NULL},
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};

  memcpy(table, trust_options, sizeof(trust_options));
}

int trust_take(const struct trust *trust, const struct cli *cli,
               relay_options *options) {
  char error[ERROR_MAX];

  options->penalties = (relay_penalties)trust->penalties;
  if (options->tokens != NULL &&
      relay_token_each(options->tokens, NULL, NULL, error, sizeof(error)) != 0)
    return cli_fail(cli, "%s", error);
  return CLI_GO;
}
