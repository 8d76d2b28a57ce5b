/* SPDX-License-Identifier: MIT */
/*
 * The command line, from one table; see cli.h. What is said, the log
 * and the loop are in cli_run.c.
 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN 24

/* ---- values ----------------------------------------------------------- */

/* Decimal digits from *text on, which is moved past them. */
static bool read_digits(const char **text, uint64_t *value) {
  const char *at = *text;

  for (*value = 0; *at >= '0' && *at <= '9'; at++) {
    uint64_t digit = (uint64_t)(*at - '0');

    if (*value > (UINT64_MAX - digit) / 10)
      return false;
    *value = *value * 10 + digit;
  }
  if (at == *text)
    return false;
  *text = at;
  return true;
}

static bool read_number(const char *text, uint64_t min, uint64_t max,
                        unsigned *number) {
  uint64_t value;

  if (!read_digits(&text, &value) || *text != '\0' || value < min ||
      value > max)
    return false;
  *number = (unsigned)value;
  return true;
}

bool cli_read_port(const char *text, unsigned min, unsigned *port) {
  return read_number(text, min, 65535, port);
}

static bool read_ports(const char *text, unsigned ports[2]) {
  uint64_t low, high;

  if (!read_digits(&text, &low) || *text++ != '-' ||
      !read_digits(&text, &high) || *text != '\0' || low == 0 || low > high ||
      high > 65535)
    return false;
  ports[0] = (unsigned)low;
  ports[1] = (unsigned)high;
  return true;
}

struct unit {
  const char *name;
  uint64_t factor;
};

static const struct unit times[] = {{"", 1000},   {"ms", 1},      {"s", 1000},
                                    {"m", 60000}, {"h", 3600000}, {NULL, 0}};
static const struct unit sizes[] = {
    {"", 1},        {"k", 1024},    {"K", 1024}, {"m", 1 << 20},
    {"M", 1 << 20}, {"G", 1 << 30}, {NULL, 0}};

/* A number, a fraction for units above one, and a unit. */
static bool read_quantity(const char *text, const struct unit *units,
                          uint64_t *value) {
  uint64_t whole, part = 0, scale = 1;

  if (!read_digits(&text, &whole))
    return false;
  if (*text == '.') {
    const char *start = ++text;

    if (!read_digits(&text, &part) || text - start > 3)
      return false;
    for (; start < text; start++)
      scale *= 10;
  }
  while (units->name != NULL && strcmp(units->name, text) != 0)
    units++;
  if (units->name == NULL || whole > (UINT64_MAX >> 1) / units->factor)
    return false;
  *value = whole * units->factor + part * units->factor / scale;
  return true;
}

static bool read_choice(const char *text, const char *choices, int *index) {
  size_t length = strlen(text);

  for (int i = 0; *choices != '\0'; i++) {
    size_t size = strcspn(choices, "|");

    if (size == length && memcmp(text, choices, size) == 0) {
      *index = i;
      return true;
    }
    choices += size + (choices[size] == '|');
  }
  return false;
}

static int set_value(const struct cli *cli, const struct cli_option *option,
                     const char *text) {
  bool ok = false;

  switch (option->kind) {
  case CLI_FLAG:
    *(int *)option->target = 1;
    return CLI_GO;
  case CLI_TEXT:
    *(const char **)option->target = text;
    return *text != '\0' ? CLI_GO
                         : cli_usage(cli, "--%s: it is empty", option->name);
  case CLI_NUMBER:
    ok = read_number(text, option->min, option->max, option->target);
    return ok ? CLI_GO
              : cli_usage(cli, "--%s: '%s' is not a number (%llu-%llu)",
                          option->name, text, (unsigned long long)option->min,
                          (unsigned long long)option->max);
  case CLI_PORT:
    ok = cli_read_port(text, 1, option->target);
    return ok ? CLI_GO
              : cli_usage(cli, "--%s: '%s' is not a port (1-65535)",
                          option->name, text);
  case CLI_PORTS:
    ok = read_ports(text, option->target);
    return ok ? CLI_GO
              : cli_usage(cli, "--%s: '%s' is not a range of ports (LO-HI)",
                          option->name, text);
  case CLI_TIME:
    ok = read_quantity(text, times, option->target);
    return ok ? CLI_GO
              : cli_usage(cli, "--%s: '%s' is not a time (200ms, 5s, 2m, 1h)",
                          option->name, text);
  case CLI_SIZE:
    ok = read_quantity(text, sizes, option->target) &&
         (option->max == 0 || *(uint64_t *)option->target <= option->max);
    return ok ? CLI_GO
              : cli_usage(cli, "--%s: '%s' is not a size (65536, 64K, 1M)",
                          option->name, text);
  case CLI_CHOICE:
    ok = read_choice(text, option->choices, option->target);
    return ok ? CLI_GO
              : cli_usage(cli, "--%s: '%s' is not one of %s", option->name,
                          text, option->choices);
  }
  return CLI_GO;
}

/* ---- the help --------------------------------------------------------- */

/* In the last unit of the table that needs no fraction. */
static void print_quantity(uint64_t value, const struct unit *units) {
  const struct unit *best = NULL;

  for (; units->name != NULL; units++)
    if (value % units->factor == 0)
      best = units;
  if (best != NULL)
    printf("%llu%s", (unsigned long long)(value / best->factor), best->name);
}

static void print_choice(const char *choices, int index) {
  while (index-- > 0)
    choices += strcspn(choices, "|") + 1;
  printf("%.*s", (int)strcspn(choices, "|"), choices);
}

static bool is_unset(const struct cli_option *option) {
  switch (option->kind) {
  case CLI_TEXT:
    return *(const char **)option->target == NULL;
  case CLI_NUMBER:
  case CLI_PORT:
  case CLI_PORTS:
    return *(unsigned *)option->target == 0;
  case CLI_TIME:
  case CLI_SIZE:
    return *(uint64_t *)option->target == 0;
  default:
    return false;
  }
}

static void print_default(const struct cli_option *option) {
  bool unset = is_unset(option) && option->unset != NULL;

  if (option->kind == CLI_FLAG || (unset && *option->unset == '\0'))
    return;
  printf(" (default: ");
  if (unset)
    printf("%s", option->unset);
  else if (option->kind == CLI_TEXT)
    printf("%s", *(const char **)option->target);
  else if (option->kind == CLI_TIME)
    print_quantity(*(uint64_t *)option->target, times);
  else if (option->kind == CLI_SIZE)
    print_quantity(*(uint64_t *)option->target, sizes);
  else if (option->kind == CLI_CHOICE)
    print_choice(option->choices, *(int *)option->target);
  else
    printf("%u", *(unsigned *)option->target);
  printf(")");
}

static void print_option(const struct cli_option *option) {
  const char *argument = option->argument;
  int width = printf("  --%s%s%s", option->name, argument != NULL ? " " : "",
                     argument != NULL ? argument : "");

  if (width >= HELP_COLUMN) {
    printf("\n");
    width = 0;
  }
  printf("%*s%s", HELP_COLUMN - width, "", option->help);
  if (option->kind == CLI_CHOICE)
    printf(": %s", option->choices);
  print_default(option);
  printf("\n");
}

static bool has_times(const struct cli *cli) {
  for (size_t i = 0; cli->tables[i] != NULL; i++)
    for (const struct cli_option *o = cli->tables[i]; o->name != NULL; o++)
      if (o->kind == CLI_TIME)
        return true;
  return false;
}

static int print_help(const struct cli *cli) {
  printf("Usage: %s", cli->program);
  for (size_t i = 0; cli->operands[i] != NULL; i++)
    printf(" %s", cli->operands[i]);
  printf(" [OPTION]...\n\n%s\n\n", cli->about);
  for (size_t i = 0; cli->tables[i] != NULL; i++)
    for (const struct cli_option *o = cli->tables[i]; o->name != NULL; o++)
      print_option(o);
  printf("  --help%*sshow this and exit\n", HELP_COLUMN - 8, "");
  printf("  --version%*sshow the version and exit\n", HELP_COLUMN - 11, "");
  if (has_times(cli))
    printf("\nA time is 200ms, 5s, 2m or 1h; a plain number is seconds.\n");
  return cli_printed(cli);
}

/* ---- the line --------------------------------------------------------- */

/* The option that `text`, without dashes, names; `value` is what follows '='
   or NULL. */
static const struct cli_option *
find_option(const struct cli *cli, const char *text, const char **value) {
  size_t length = strcspn(text, "=");

  *value = text[length] == '=' ? text + length + 1 : NULL;
  for (size_t i = 0; cli->tables[i] != NULL; i++)
    for (const struct cli_option *o = cli->tables[i]; o->name != NULL; o++)
      if (strlen(o->name) == length && memcmp(o->name, text, length) == 0)
        return o;
  return NULL;
}

/* How many letters one has in place of the other's, between what they begin
   and what they end with alike. */
static size_t differing(const char *one, size_t n, const char *other) {
  size_t m = strlen(other), least = n < m ? n : m, head = 0, tail = 0;

  while (head < least && one[head] == other[head])
    head++;
  while (tail < least - head && one[n - 1 - tail] == other[m - 1 - tail])
    tail++;
  return (n > m ? n : m) - head - tail;
}

static int fail_unknown(const struct cli *cli, const char *text) {
  const char *word = text + strspn(text, "-"), *near = NULL;
  size_t length = strcspn(word, "="), best = length / 2 < 2 ? length / 2 : 2;

  for (size_t i = 0; cli->tables[i] != NULL; i++)
    for (const struct cli_option *o = cli->tables[i]; o->name != NULL; o++) {
      size_t count = differing(word, length, o->name);

      if (count < best + (near == NULL)) {
        best = count;
        near = o->name;
      }
    }
  return near == NULL ? cli_usage(cli, "unknown option '%s'", text)
                      : cli_usage(cli,
                                  "unknown option '%s' (did you mean "
                                  "'--%s'?)",
                                  text, near);
}

/* Reads one option. `apply` false: only finds out whether a value follows.
   Moves `index` to the last argument used. */
static int read_option(const struct cli *cli, int argc, char **argv, int *index,
                       bool apply) {
  const char *text = argv[*index], *value = NULL;
  const struct cli_option *option =
      strncmp(text, "--", 2) == 0 ? find_option(cli, text + 2, &value) : NULL;

  if (option == NULL)
    return apply ? fail_unknown(cli, text) : CLI_GO;
  if (option->kind == CLI_FLAG && value != NULL)
    return apply ? cli_usage(cli, "--%s takes no value", option->name) : CLI_GO;
  if (option->kind != CLI_FLAG && value == NULL) {
    if (*index + 1 >= argc)
      return apply ? cli_usage(cli, "--%s needs a value", option->name)
                   : CLI_GO;
    value = argv[++*index];
  }
  return apply ? set_value(cli, option, value) : CLI_GO;
}

/* --help and --version count wherever they stand, and before any value is
   set: the help shows the defaults. */
static int answer_questions(const struct cli *cli, int argc, char **argv) {
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
      return print_help(cli);
    if (strcmp(argv[i], "--version") == 0) {
      printf("%s %s\n", cli->program, relay_version());
      return cli_printed(cli);
    }
    if (argv[i][0] == '-')
      (void)read_option(cli, argc, argv, &i, false);
  }
  return CLI_GO;
}

int cli_parse(const struct cli *cli, int argc, char **argv,
              const char **operands) {
  int status = answer_questions(cli, argc, argv);
  bool only_operands = false;
  size_t count = 0;

  for (int i = 1; i < argc && status == CLI_GO; i++) {
    if (!only_operands && strcmp(argv[i], "--") == 0)
      only_operands = true;
    else if (!only_operands && argv[i][0] == '-' && argv[i][1] != '\0')
      status = read_option(cli, argc, argv, &i, true);
    else if (cli->operands[count] == NULL)
      status = cli_usage(cli, "unexpected argument '%s'", argv[i]);
    else
      operands[count++] = argv[i];
  }
  if (status == CLI_GO && cli->operands[count] != NULL)
    status = cli_usage(cli, "%s is missing", cli->operands[count]);
  return status;
}
