/* SPDX-License-Identifier: MIT */
/* See relay_trust.h. */
#include "relay_trust.h"

#include <string.h>

#define ERROR_MAX 1024

void trust_list(relay_options *options, struct cli_option *table) {
  const struct cli_option trust_options[] = {
      {"tokens", "FILE", CLI_TEXT, &options->tokens,
       "who may ask for an address", "anyone", 0, 0, NULL},
      {"max-unproven", "N", CLI_NUMBER, &options->max_unproven,
       "connections that have not said who they are", NULL, 1, 1000000, NULL},
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};

  memcpy(table, trust_options, sizeof(trust_options));
}

int trust_check(const struct cli *cli, const relay_options *options) {
  char error[ERROR_MAX];

  if (options->tokens != NULL &&
      relay_token_each(options->tokens, NULL, NULL, error, sizeof(error)) != 0)
    return cli_fail(cli, "%s", error);
  return CLI_GO;
}
