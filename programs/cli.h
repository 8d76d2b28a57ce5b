/* SPDX-License-Identifier: MIT */
/*
 * What the three programs have in common: options from a table, errors and
 * help made of the same table, log lines on standard error, signals through
 * the loop, and a way out that cannot hang.
 *
 * Exit statuses: CLI_OK, CLI_FAILED with one line why, CLI_USAGE. Standard
 * output is for results only. A secret is never an option's value.
 */
#ifndef RELAY_PROGRAMS_CLI_H
#define RELAY_PROGRAMS_CLI_H

#include <relay/base.h>
#include <stdbool.h>
#include <uv.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* ---- the command line ------------------------------------------------- */

enum cli_kind {
  CLI_FLAG,   /* int: 1 when given */
  CLI_TEXT,   /* const char *, not empty */
  CLI_NUMBER, /* unsigned, from min to max */
  CLI_PORT,   /* unsigned, 1 to 65535 */
  CLI_PORTS,  /* unsigned[2]: LO-HI */
  CLI_TIME,   /* uint64_t, milliseconds: 200ms, 5s, 2m, 1h; a plain number is
                 seconds */
  CLI_SIZE,   /* uint64_t, bytes: 65536, 64K, 1M, 2G; up to max if not 0 */
  CLI_CHOICE  /* int: the index in `choices`, "text|json|none" */
};

struct cli_option {
  const char *name;     /* without its dashes; NULL ends a table */
  const char *argument; /* how the help calls the value */
  enum cli_kind kind;
  void *target; /* holds the default before, shown by the help */
  const char *help;
  const char *unset; /* what the help says of a default of 0 or NULL; "": no
                        word of it */
  uint64_t min;
  uint64_t max;
  const char *choices;
};

#define CLI_TABLES_MAX 7 /* NULL included */

struct cli {
  const char *program;
  const char *about;           /* one or more sentences for the help */
  const char *const *operands; /* names, NULL-terminated: all are needed */
  const char *where; /* FILE:LINE of options that are not the user's; or NULL */
  const struct cli_option *tables[CLI_TABLES_MAX]; /* NULL-terminated */
};

/* Goes on with the program: what is not an exit status. */
#define CLI_GO (-1)

/* Reads the command line: "--option VALUE", "--option=VALUE", operands between
   them, "--" before operands that begin with a dash. CLI_GO, or the status to
   exit with: --help and --version were answered, or an error was told. */
int cli_parse(const struct cli *cli, int argc, char **argv,
              const char **operands);

/* "PROGRAM: ..." on standard error; with usage, and where the help is. Return
   CLI_FAILED and CLI_USAGE. With `where`, usage is a failure there. */
int cli_fail(const struct cli *cli, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int cli_usage(const struct cli *cli, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A port as text; `min` 0 allows "0". False when it is none. */
bool cli_read_port(const char *text, unsigned min, unsigned *port);

/* One line on standard output, flushed. 0, or a libuv code: it is not there. */
int cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* After all that a program was asked to print: CLI_OK, or CLI_FAILED if some of
   it is not there. A reader that went away had enough. */
int cli_printed(const struct cli *cli);

/* ---- the log ---------------------------------------------------------- */

struct cli_log {
  int format;    /* enum relay_log_format_kind, or CLI_LOG_NONE */
  int level;     /* enum relay_log_level */
  uint64_t lost; /* lines since one could be written */
};
#define CLI_LOG_NONE 2

/* Options "log" and "log-level" for a table. */
#define CLI_LOG_OPTIONS(log)                                                   \
  {"log",                                                                      \
   "FORMAT",                                                                   \
   CLI_CHOICE,                                                                 \
   &(log)->format,                                                             \
   "form of the log on standard error",                                        \
   NULL,                                                                       \
   0,                                                                          \
   0,                                                                          \
   "text|json|none"},                                                          \
  {                                                                            \
    "log-level", "LEVEL", CLI_CHOICE, &(log)->level,                           \
        "lowest level that is logged", NULL, 0, 0, "debug|info|warn|error"     \
  }

/* First of all: a standard stream that was closed is opened on nothing.
   Otherwise a socket would take its place, and get the log's lines. */
void cli_open_standard(void);

/* Writes a line, which ends in LF, as it is. Who reads the log must not hold up
   those who are served: when it takes none for a while, lines are left out; how
   many, the log says as soon as it is read on. */
void cli_log_line(struct cli_log *log, const char *line, size_t length);

/* A relay_log_fn; `data` is a struct cli_log. */
void cli_log_record(void *data, const relay_log_record *record);

/* ---- running ---------------------------------------------------------- */

/* A loop that ends with its program, and the signals that reach it. */
struct cli_run {
  uv_loop_t loop;
  uv_signal_t signals[3];
  uv_timer_t patience;
  void (*on_signal)(struct cli_run *run, int signal);
  bool watching;
};

/* Ignores SIGPIPE and watches SIGINT, SIGTERM and SIGHUP. 0 or a libuv code. */
int cli_run_init(struct cli_run *run,
                 void (*on_signal)(struct cli_run *run, int signal));
/* The program is closing what it has on the loop. Should that take long (a
   look-up of a name cannot be stopped), the process ends with `status`. */
void cli_run_ending(struct cli_run *run, int status);
/* Runs the loop until nothing but this module's handles is on it, and closes
   those. */
void cli_run(struct cli_run *run);

#endif
