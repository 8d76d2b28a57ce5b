/* SPDX-License-Identifier: MIT */
/*
 * The options of the relay program that are numbers and addresses: where it
 * listens, how much it takes on, and how long it waits.
 */
#ifndef RELAY_PROGRAMS_RELAY_SETTINGS_H
#define RELAY_PROGRAMS_RELAY_SETTINGS_H

#include <relay/relay.h>

#include "cli.h"

/* Those that are read into something else than relay_options has. */
struct settings {
  unsigned ports[2];
  int mode;
  uint64_t rcvbuf_bytes;
};

/* Each fills a table of options, its end included. */
void settings_list_addresses(struct settings *settings, relay_options *options,
                             struct cli_option *table);
void settings_list_caps(relay_options *options, struct cli_option *table);
void settings_list_times(relay_options *options, struct cli_option *table);

/* Once the command line is read: takes what it said over, and looks whether it
   can be. CLI_GO or a status. */
int settings_take(const struct settings *settings, const struct cli *cli,
                  relay_options *options);

#endif
