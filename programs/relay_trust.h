/* SPDX-License-Identifier: MIT */
/*
 * The options of the relay program that are about whom it trusts, and how much
 * it bears from those it does not.
 */
#ifndef RELAY_PROGRAMS_RELAY_TRUST_H
#define RELAY_PROGRAMS_RELAY_TRUST_H

#include <relay/relay.h>

#include "cli.h"
#include "confine.h"

struct trust {
  int penalties;
};

/* Fills a table of options, its end included. */
void trust_list(struct trust *trust, relay_options *options,
                struct cli_option *table);

/* Once the command line is read: takes what it said over, and looks whether
   the tokens file and the certificates, if there are any, are as they should
   be. CLI_GO or a status. */
int trust_take(const struct trust *trust, const struct cli *cli,
               relay_options *options);

/* Tells of the files that are read again. */
void trust_needs(const relay_options *options, struct confine *confine);

/* Whether anybody is let in, as far as these options go. */
bool trust_is_open(const relay_options *options);
/* Reads again what there is, and the relay's log says how it went. False: there
   is nothing to read. */
bool trust_reload(const relay_options *options, relay_t *relay);

#endif
