/* SPDX-License-Identifier: MIT */
/*
 * The options of the relay program that are about whom it trusts, and how much
 * it bears from those it does not.
 */
#ifndef RELAY_PROGRAMS_RELAY_TRUST_H
#define RELAY_PROGRAMS_RELAY_TRUST_H

#include <relay/relay.h>

#include "cli.h"

struct trust {
  int penalties;
};

/* Fills a table of options, its end included. */
void trust_list(struct trust *trust, relay_options *options,
                struct cli_option *table);

/* Once the command line is read: takes what it said over, and looks whether
   the tokens file, if there is one, is as it should be. CLI_GO or a status. */
int trust_take(const struct trust *trust, const struct cli *cli,
               relay_options *options);

#endif
