/* SPDX-License-Identifier: MIT */
/*
 * The options of the relay program that are about whom it trusts, and how much
 * it bears from those it does not.
 */
#ifndef RELAY_PROGRAMS_RELAY_TRUST_H
#define RELAY_PROGRAMS_RELAY_TRUST_H

#include <relay/relay.h>

#include "cli.h"

/* Fills a table, END included. */
void trust_list(relay_options *options, struct cli_option *table);

/* Whether the tokens file, if there is one, is as it should be. CLI_GO or a
   status. */
int trust_check(const struct cli *cli, const relay_options *options);

#endif
