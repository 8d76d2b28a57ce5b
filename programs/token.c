/* SPDX-License-Identifier: MIT */
/*
 * See token.h. Each command is a command line of its own, read by cli.c.
 */
#include "token.h"

#include <inttypes.h>
#include <relay/relay.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli.h"

#define ERROR_MAX 1024
#define TIME_MAX 32

#define END                                                                    \
  { NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL }

#define TOKENS_OPTION(target)                                                  \
  { "tokens", "FILE", CLI_TEXT, target, "the tokens file", "", 0, 0, NULL }

static int parse(const struct cli *cli, int argc, char **argv,
                 const char **operand, const char *const *path) {
  int status = cli_parse(cli, argc, argv, operand);

  if (status == CLI_GO && *path == NULL)
    return cli_usage(cli, "--tokens is missing");
  return status;
}

/* ---- new -------------------------------------------------------------- */

/* A day more than the units of cli.c: what expires is seldom a matter of
   hours. */
static bool read_duration(const char *text, int64_t *seconds) {
  static const struct {
    char unit;
    int64_t seconds;
  } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
  const char *at = text;
  int64_t value = 0;

  for (; *at >= '0' && *at <= '9' && value <= INT32_MAX; at++)
    value = value * 10 + (*at - '0');
  if (at == text || value == 0 || value > INT32_MAX)
    return false;
  for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
    if (at[0] == units[i].unit && at[1] == '\0') {
      *seconds = value * units[i].seconds;
      return true;
    }
  return false;
}

static int set_expiry(const struct cli *cli, const char *text,
                      relay_token *token) {
  int64_t seconds, now = (int64_t)time(NULL);

  if (text == NULL)
    return CLI_GO;
  if (relay_token_read_time(text, &token->expires) == 0)
    return token->expires > now
               ? CLI_GO
               : cli_usage(cli, "--expires: %s has passed", text);
  if (!read_duration(text, &seconds))
    return cli_usage(cli,
                     "--expires: '%s' is neither a time like "
                     "2026-12-31T00:00:00Z nor a duration (90d, 12h, 30m)",
                     text);
  token->expires = now + seconds;
  return CLI_GO;
}

static int new_token(int argc, char **argv) {
  static const char *const operands[] = {"NAME", NULL};
  relay_token token = {.size = sizeof(token)};
  char text[RELAY_TOKEN_SIZE], error[ERROR_MAX];
  const char *path = NULL, *expires = NULL;
  const struct cli_option options[] = {
      TOKENS_OPTION(&path),
      {"ports", "LIST", CLI_TEXT, &token.ports,
       "the only public ports it may have, 8081,9000-9100",
       "those of the relay", 0, 0, NULL},
      {"leases", "N", CLI_NUMBER, &token.leases, "addresses at a time",
       "as the relay has it", 1, 1000000, NULL},
      {"visitors", "N", CLI_NUMBER, &token.visitors,
       "visitors of each address at a time", "as the relay has it", 1, 1000000,
       NULL},
      {"expires", "WHEN", CLI_TEXT, &expires,
       "2026-12-31T00:00:00Z, or from now on 90d, 12h, 30m", "never", 0, 0,
       NULL},
      {"plain", NULL, CLI_FLAG, &token.plain,
       "data connections may go unencrypted", NULL, 0, 0, NULL},
      {"note", "TEXT", CLI_TEXT, &token.note, "for whoever reads the file",
       "none", 0, 0, NULL},
      END};
  const struct cli cli = {
      .program = "relay token new",
      .about = "Adds a token to a file, which is made if it is not there, and "
               "prints it.\nNobody will see it again: the file has only a key "
               "derived from it.\nNAME is 1 to 64 of A-Z, a-z, 0-9, '_' and "
               "'-'.",
      .operands = operands,
      .tables = {options},
  };
  int status = parse(&cli, argc, argv, &token.id, &path);
  int err;

  if (status == CLI_GO)
    status = set_expiry(&cli, expires, &token);
  if (status != CLI_GO)
    return status;
  err = relay_token_new(path, &token, text, sizeof(text), error, sizeof(error));
  if (err == UV_EINVAL)
    return cli_usage(&cli, "%s", error);
  if (err != 0)
    return cli_fail(&cli, "%s", error);
  if (cli_say("%s", text) != 0)
    return cli_fail(&cli, "cannot print the token; '%s' is in %s all the same",
                    token.id, path);
  return CLI_OK;
}

/* ---- list ------------------------------------------------------------- */

static int print_token(void *data, const relay_token *token) {
  char time[TIME_MAX];

  (void)data;
  printf("%s", token->id);
  if (token->ports != NULL)
    printf(" ports=%s", token->ports);
  if (token->leases != 0)
    printf(" leases=%u", token->leases);
  if (token->visitors != 0)
    printf(" visitors=%u", token->visitors);
  if (token->expires != 0) {
    relay_token_write_time(token->expires, time);
    printf(" expires=%s", time);
  }
  if (token->plain)
    printf(" plain=yes");
  if (token->revoked)
    printf(" revoked=yes");
  if (token->note != NULL)
    printf(" note=%s", token->note);
  printf("\n");
  return 0;
}

static int list_tokens(int argc, char **argv) {
  static const char *const operands[] = {NULL};
  char error[ERROR_MAX];
  const char *path = NULL;
  const struct cli_option options[] = {TOKENS_OPTION(&path), END};
  const struct cli cli = {
      .program = "relay token list",
      .about = "Shows who is in a tokens file and what each may have, one a "
               "line, as it\nstands there but for the keys.",
      .operands = operands,
      .tables = {options},
  };
  int status = parse(&cli, argc, argv, NULL, &path);

  if (status != CLI_GO)
    return status;
  if (relay_token_each(path, print_token, NULL, error, sizeof(error)) != 0)
    return cli_fail(&cli, "%s", error);
  return cli_printed(&cli);
}

/* ---- revoke ----------------------------------------------------------- */

static int revoke_token(int argc, char **argv) {
  static const char *const operands[] = {"ID", NULL};
  char error[ERROR_MAX];
  const char *path = NULL, *id = NULL;
  const struct cli_option options[] = {TOKENS_OPTION(&path), END};
  const struct cli cli = {
      .program = "relay token revoke",
      .about = "Marks a token as revoked. A relay that runs learns of it with "
               "SIGHUP.",
      .operands = operands,
      .tables = {options},
  };
  int status = parse(&cli, argc, argv, &id, &path);

  if (status != CLI_GO)
    return status;
  if (relay_token_revoke(path, id, error, sizeof(error)) != 0)
    return cli_fail(&cli, "%s", error);
  return CLI_OK;
}

/* ---- which ------------------------------------------------------------ */

static const struct command {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *usage;
} commands[] = {
    {"new", new_token, "new NAME --tokens FILE [OPTION]..."},
    {"list", list_tokens, "list --tokens FILE"},
    {"revoke", revoke_token, "revoke ID --tokens FILE"},
};

#define COMMANDS (sizeof(commands) / sizeof(*commands))

static int print_usage(const struct cli *cli) {
  for (size_t i = 0; i < COMMANDS; i++)
    printf("%s relay token %s\n", i == 0 ? "Usage:" : "      ",
           commands[i].usage);
  printf("\nEach has a help of its own: relay token new --help\n");
  return cli_printed(cli);
}

int token_main(int argc, char **argv) {
  const struct cli cli = {.program = "relay token"};
  const char *name = argc > 1 ? argv[1] : NULL;

  if (name == NULL)
    return cli_usage(&cli, "new, list or revoke is missing");
  if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
    return print_usage(&cli);
  if (strcmp(name, "--version") == 0) {
    cli_say("%s %s", cli.program, relay_version());
    return cli_printed(&cli);
  }
  for (size_t i = 0; i < COMMANDS; i++)
    if (strcmp(name, commands[i].name) == 0)
      return commands[i].run(argc - 1, argv + 1);
  return cli_usage(&cli, "'%s' is not one of new, list, revoke", name);
}
