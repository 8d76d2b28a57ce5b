/* SPDX-License-Identifier: MIT */
/*
 * What a program says, its log and the loop it runs; see cli.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* Closing is a matter of milliseconds, and of the two seconds that a script may
   wait in `stop`; but for what cannot be stopped. */
#define PATIENCE_MS 3000
#define LINE_MAX_BYTES (PIPE_BUF - 1)
/* A reader that is only slow is waited for. */
#define LOG_PATIENCE_MS 100

static const int watched[] = {SIGINT, SIGTERM, SIGHUP};
#define WATCHED_COUNT (sizeof(watched) / sizeof(*watched))

/* ---- telling ---------------------------------------------------------- */

int cli_fail(const struct cli *cli, const char *format, ...) {
  va_list arguments;

  va_start(arguments, format);
  fprintf(stderr, "%s: ", cli->program);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  return CLI_FAILED;
}

int cli_usage(const struct cli *cli, const char *format, ...) {
  va_list arguments;

  va_start(arguments, format);
  fprintf(stderr, "%s: ", cli->program);
  if (cli->where != NULL)
    fprintf(stderr, "%s: ", cli->where);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  if (cli->where != NULL)
    return CLI_FAILED;
  fprintf(stderr, "Try '%s --help'.\n", cli->program);
  return CLI_USAGE;
}

/* Nothing is lost that anybody waits for when the reader went away. */
static int flush_output(void) {
  int err = fflush(stdout) == 0 ? 0 : -errno;

  if (err == UV_EPIPE)
    clearerr(stdout);
  return err;
}

int cli_say(const char *format, ...) {
  va_list arguments;

  va_start(arguments, format);
  vprintf(format, arguments);
  putchar('\n');
  va_end(arguments);
  return flush_output();
}

int cli_printed(const struct cli *cli) {
  int err = flush_output();

  if (err == UV_EPIPE || (err == 0 && !ferror(stdout)))
    return CLI_OK;
  return cli_fail(cli, "cannot write to standard output: %s",
                  relay_strerror(err != 0 ? err : UV_EIO));
}

/* ---- the log ---------------------------------------------------------- */

/* A pipe that is, takes PIPE_BUF bytes. */
static bool is_writable(int wait_ms) {
  struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
  int count;

  do
    count = poll(&fd, 1, wait_ms);
  while (count < 0 && errno == EINTR);
  return count != 0;
}

/* Up to PIPE_BUF bytes by one write, so that lines of several processes do not
   mix. False: nobody takes it. There is nobody to tell that it failed. */
static bool write_line(const char *line, size_t length) {
  while (length != 0) {
    ssize_t count = -1;

    if (!is_writable(LOG_PATIENCE_MS))
      return false;
    count = write(STDERR_FILENO, line, length < PIPE_BUF ? length : PIPE_BUF);
    if (count < 0)
      return true;
    line += count;
    length -= (size_t)count;
  }
  return true;
}

static size_t format_line(const struct cli_log *log,
                          const relay_log_record *record, char *line) {
  size_t length = relay_log_format(record, (relay_log_format_kind)log->format,
                                   line, LINE_MAX_BYTES);

  line[length] = '\n';
  return length + 1;
}

static void tell_lost(struct cli_log *log) {
  relay_log_field field = {"count", NULL, (int64_t)log->lost};
  relay_log_record record = {sizeof(record), RELAY_LOG_WARN, "log lines lost",
                             &field, 1};
  char line[LINE_MAX_BYTES + 1];

  if (write_line(line, format_line(log, &record, line)))
    log->lost = 0;
}

void cli_log_line(struct cli_log *log, const char *line, size_t length) {
  if (log->lost != 0 && is_writable(0))
    tell_lost(log);
  if (log->lost != 0 || !write_line(line, length))
    log->lost++;
}

void cli_log_record(void *data, const relay_log_record *record) {
  struct cli_log *log = data;
  char line[LINE_MAX_BYTES + 1];

  if (log->format != CLI_LOG_NONE && (int)record->level >= log->level)
    cli_log_line(log, line, format_line(log, record, line));
}

void cli_open_standard(void) {
  int fd;

  do
    fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0)
    close(fd);
}

/* ---- the loop --------------------------------------------------------- */

static void on_uv_signal(uv_signal_t *handle, int signal) {
  struct cli_run *run = handle->data;

  run->on_signal(run, signal);
}

static void close_handles(struct cli_run *run) {
  if (run->watching)
    for (size_t i = 0; i < WATCHED_COUNT; i++)
      uv_close((uv_handle_t *)&run->signals[i], NULL);
  uv_close((uv_handle_t *)&run->patience, NULL);
}

int cli_run_init(struct cli_run *run,
                 void (*on_signal)(struct cli_run *run, int signal)) {
  int err = uv_loop_init(&run->loop);

  if (err != 0)
    return err;
  signal(SIGPIPE, SIG_IGN);
  run->on_signal = on_signal;
  run->watching = true;
  uv_timer_init(&run->loop, &run->patience);
  uv_unref((uv_handle_t *)&run->patience);
  for (size_t i = 0; i < WATCHED_COUNT; i++) {
    uv_signal_init(&run->loop, &run->signals[i]);
    run->signals[i].data = run;
    uv_unref((uv_handle_t *)&run->signals[i]);
  }
  for (size_t i = 0; i < WATCHED_COUNT && err == 0; i++) {
    err = uv_signal_start(&run->signals[i], on_uv_signal, watched[i]);
    uv_unref((uv_handle_t *)&run->signals[i]);
  }
  return err;
}

static void on_patience_over(uv_timer_t *timer) {
  /* Not exit: that would wait for the very thread that hangs. */
  fflush(stdout);
  _exit((int)(intptr_t)timer->data);
}

void cli_run_ending(struct cli_run *run, int status) {
  run->patience.data = (void *)(intptr_t)status;
  uv_timer_start(&run->patience, on_patience_over, PATIENCE_MS, 0);
}

void cli_run(struct cli_run *run) {
  uv_run(&run->loop, UV_RUN_DEFAULT);
  close_handles(run);
  uv_run(&run->loop, UV_RUN_DEFAULT);
  uv_loop_close(&run->loop);
}
