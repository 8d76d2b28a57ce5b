/* SPDX-License-Identifier: MIT */
/*
 * `relay token`: makes, lists and revokes the tokens of a tokens file. No
 * relay runs for it.
 */
#ifndef RELAY_PROGRAMS_TOKEN_H
#define RELAY_PROGRAMS_TOKEN_H

/* `argv` begins with "token". The status to exit with. */
int token_main(int argc, char **argv);

#endif
