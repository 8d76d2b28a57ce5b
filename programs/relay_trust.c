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
      {"tls-cert", "FILE", CLI_TEXT, &options->tls_cert,
       "certificate of this relay, with its chain", "none", 0, 0, NULL},
      {"tls-key", "FILE", CLI_TEXT, &options->tls_key, "its key", "none", 0, 0,
       NULL},
      {"tls-client-ca", "FILE", CLI_TEXT, &options->tls_client_ca,
       "authorities: every agent needs a certificate of one",
       "agents need no certificate", 0, 0, NULL},
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
       "faults are answered late (auto: where somebody has to prove something)",
       NULL, 0, 0, "auto|on|off"},
      {"penalty", "TIME", CLI_TIME, &options->penalty_ms,
       "most that such an answer waits", NULL, 0, 0, NULL},
      {"penalty-half-life", "TIME", CLI_TIME, &options->penalty_half_life_ms,
       "in which half of a source's faults are forgotten", "never", 0, 0, NULL},
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};

  memcpy(table, trust_options, sizeof(trust_options));
}

static int check_certificates(const struct cli *cli,
                              const relay_options *options) {
  char error[ERROR_MAX];

  if (options->tls_cert == NULL && options->tls_key != NULL)
    return cli_usage(cli, "--tls-key needs --tls-cert");
  if (options->tls_cert != NULL && options->tls_key == NULL)
    return cli_usage(cli, "--tls-cert needs --tls-key");
  if (options->tls_cert == NULL && options->tls_client_ca != NULL)
    return cli_usage(cli, "--tls-client-ca needs --tls-cert and --tls-key");
  if (options->tls_cert != NULL &&
      relay_tls_check(1, options->tls_cert, options->tls_key,
                      options->tls_client_ca, error, sizeof(error)) != 0)
    return cli_fail(cli, "%s", error);
  return CLI_GO;
}

int trust_take(const struct trust *trust, const struct cli *cli,
               relay_options *options) {
  char error[ERROR_MAX];

  options->penalties = (relay_penalties)trust->penalties;
  if (options->tokens != NULL &&
      relay_token_each(options->tokens, NULL, NULL, error, sizeof(error)) != 0)
    return cli_fail(cli, "%s", error);
  return check_certificates(cli, options);
}

void trust_needs(const relay_options *options, struct confine *confine) {
  const struct {
    const char *path, *why;
  } files[] = {{options->tokens, "--tokens"},
               {options->tls_cert, "--tls-cert"},
               {options->tls_key, "--tls-key"},
               {options->tls_client_ca, "--tls-client-ca"}};
  size_t i;

  for (i = 0; i < sizeof(files) / sizeof(files[0]); i++)
    if (files[i].path != NULL)
      confine_need_file(confine, files[i].path, files[i].why);
}

bool trust_is_open(const relay_options *options) {
  return options->tokens == NULL && options->tls_client_ca == NULL;
}

bool trust_reload(const relay_options *options, relay_t *relay) {
  if (options->tokens != NULL)
    relay_reload_tokens(relay, NULL, 0);
  if (options->tls_cert != NULL)
    relay_reload_certificates(relay, NULL, 0);
  return options->tokens != NULL || options->tls_cert != NULL;
}
