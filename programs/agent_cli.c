/* SPDX-License-Identifier: MIT */
/*
 * An agent run from the command line; see agent_cli.h.
 */
#include "agent_cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "agent_ticket.h"

#define DRAIN_MS (30 * 1000)
#define ERROR_MAX 1024
#define TICKET_RETRY_MS 1000

/* ---- options ---------------------------------------------------------- */

static void fill_table(struct agent_cli *self) {
  relay_agent_options *options = &self->options;
  const struct cli_option table[AGENT_CLI_OPTIONS] = {
      {"port", "N", CLI_PORT, &options->want_port, "public port to ask for",
       "the relay chooses", 0, 0, NULL},
      {"name", "NAME", CLI_TEXT, &options->name,
       "tells this address from others of one owner", "TARGET", 0, 0, NULL},
      {"state", "FILE", CLI_TEXT, &self->state,
       "keeps the ticket to this address, for the next start", "none", 0, 0,
       NULL},
      {"token-file", "FILE", CLI_TEXT, &self->token_file,
       "holds the token, id.secret", "RELAY_TOKEN of the environment", 0, 0,
       NULL},
      {"tls", NULL, CLI_FLAG, &self->tls,
       "the relay has to show a certificate; so with each --tls-...", NULL, 0,
       0, NULL},
      {"tls-ca", "FILE", CLI_TEXT, &options->tls_ca,
       "authorities to believe, or its certificate", "the system's", 0, 0,
       NULL},
      {"tls-name", "NAME", CLI_TEXT, &options->tls_name,
       "whose certificate it has to be", "RELAYHOST", 0, 0, NULL},
      {"tls-cert", "FILE", CLI_TEXT, &options->tls_cert,
       "certificate of this agent, with its chain", "none", 0, 0, NULL},
      {"tls-key", "FILE", CLI_TEXT, &options->tls_key, "its key", "none", 0, 0,
       NULL},
      {"data", "HOW", CLI_CHOICE, &self->data,
       "visitors' bytes on their way, with a token", NULL, 0, 0, "tls|plain"},
      {"pool", "N", CLI_NUMBER, &options->pool,
       "idle connections kept ahead of need", NULL, 0, 1024, NULL},
      {"once", NULL, CLI_FLAG, &self->once,
       "end at the first loss instead of reconnecting", NULL, 0, 0, NULL},
      {"mode", "MODE", CLI_CHOICE, &self->mode, "how bytes move", NULL, 0, 0,
       "auto|splice|copy"},
      {"workers", "N", CLI_NUMBER, &options->workers,
       "threads that move visitors' bytes", "none", 0, 64, NULL},
      {"max-visitors", "N", CLI_NUMBER, &options->max_visitors,
       "visitors at a time; more are rejected", NULL, 1, 1000000, NULL},
      {"connect", "TIME", CLI_TIME, &options->connect_ms,
       "one attempt to reach the relay or a service", NULL, 0, 0, NULL},
      {"visit", "TIME", CLI_TIME, &options->visit_ms,
       "a visitor must be served within this", NULL, 0, 0, NULL},
      {"heartbeat", "TIME", CLI_TIME, &options->heartbeat_ms,
       "between PINGs, unless the relay says", NULL, 0, 0, NULL},
      {"dead", "TIME", CLI_TIME, &options->dead_ms,
       "without a PONG: the relay is lost", NULL, 0, 0, NULL},
      {"backoff-min", "TIME", CLI_TIME, &options->backoff_min_ms,
       "first wait before reconnecting", NULL, 0, 0, NULL},
      {"backoff-max", "TIME", CLI_TIME, &options->backoff_max_ms,
       "longest wait before reconnecting", NULL, 0, 0, NULL},
      {"pool-age", "TIME", CLI_TIME, &options->pool_age_ms,
       "an idle connection is replaced after this", NULL, 0, 0, NULL},
      {"fin-timeout", "TIME", CLI_TIME, &options->fin_timeout_ms,
       "half-closed and silent: reset", "never", 0, 0, NULL},
      {"idle", "TIME", CLI_TIME, &options->idle_ms, "silent both ways: reset",
       "never", 0, 0, NULL},
      {"drain", "TIME", CLI_TIME, &self->drain_ms,
       "for visitors to finish after SIGTERM", NULL, 0, 0, NULL},
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};

  memcpy(self->table, table, sizeof(table));
}

static void log_fault(struct agent_cli *self, const char *event,
                      const char *reason) {
  relay_log_field field = {"reason", reason, 0};
  relay_log_record record = {sizeof(record), RELAY_LOG_WARN, event, &field, 1};

  cli_log_record(&self->log, &record);
}

/* ---- the ticket ------------------------------------------------------- */

static void log_ticket(struct agent_cli *self, relay_log_level level,
                       const char *event, const char *reason) {
  relay_log_field fields[2] = {{"file", self->state, 0}, {"reason", reason, 0}};
  relay_log_record record = {sizeof(record), level, event, fields,
                             reason != NULL ? 2 : 1};

  cli_log_record(&self->log, &record);
}

static void on_ticket_due(uv_timer_t *timer);

/* The address is as good as ever without it: it is kept as soon as that can
   be. */
static void keep_ticket(struct agent_cli *self) {
  bool is_due = uv_is_active((uv_handle_t *)&self->ticket_due);
  int err = agent_ticket_write(self->state, self->ticket);

  if (err != 0 && !is_due) {
    log_ticket(self, RELAY_LOG_ERROR, "ticket not kept", relay_strerror(err));
    uv_timer_start(&self->ticket_due, on_ticket_due, TICKET_RETRY_MS,
                   TICKET_RETRY_MS);
  } else if (err == 0 && is_due) {
    log_ticket(self, RELAY_LOG_INFO, "ticket is kept again", NULL);
    uv_timer_stop(&self->ticket_due);
  }
}

static void on_ticket_due(uv_timer_t *timer) {
  keep_ticket(timer->data);
}

static void on_ticket(void *data, relay_agent *agent, const char *ticket) {
  struct agent_cli *self = data;

  (void)agent;
  snprintf(self->ticket, sizeof(self->ticket), "%s", ticket);
  keep_ticket(self);
}

/* Without a ticket that can be read the agent asks for an address as if for the
   first time. */
static int take_ticket(struct agent_cli *self) {
  int err;

  self->options.on_ticket = on_ticket;
  self->options.ticket = self->ticket;
  err = agent_ticket_read(self->state, self->ticket, sizeof(self->ticket));
  if (err != UV_EILSEQ)
    return err;
  log_ticket(self, RELAY_LOG_WARN, "ticket not used",
             "it is not one whole line");
  return 0;
}

/* ---- the agent -------------------------------------------------------- */

static void close_agent(struct agent_cli *self) {
  if (self->closing)
    return;
  self->closing = true;
  uv_close((uv_handle_t *)&self->ticket_due, NULL);
  relay_agent_close(self->agent, NULL, NULL);
  cli_run_ending(&self->run, self->status);
}

static void on_established(void *data, relay_agent *agent, const char *host,
                           unsigned port, int fresh) {
  int err = cli_say("established relay address: (%s, %u)", host, port);

  (void)agent, (void)fresh;
  if (err != 0) /* visitors are served all the same */
    log_fault(data, "address not printed", relay_strerror(err));
}

/* Where the token comes from; NULL: there is none. */
static const char *token_source(const struct agent_cli *self) {
  if (self->token_file != NULL)
    return self->token_file;
  return self->options.token != NULL ? "RELAY_TOKEN" : NULL;
}

/* Refused with no reason but that, and it could have said who it is. */
static bool lacks_token(const struct agent_cli *self, int error,
                        const char *reason) {
  return error == RELAY_EDENIED && token_source(self) == NULL &&
         strstr(reason, relay_strerror(error)) != NULL;
}

static void on_end(void *data, relay_agent *agent, int error,
                   const char *reason) {
  struct agent_cli *self = data;

  (void)agent;
  if (lacks_token(self, error, reason))
    self->status = cli_fail(&self->cli,
                            "%s, and it was given no token: see "
                            "--token-file",
                            reason);
  else if (error != 0)
    self->status = cli_fail(&self->cli, "%s", reason);
  close_agent(self);
}

static void on_signal(struct cli_run *run, int signal) {
  struct agent_cli *self =
      (struct agent_cli *)((char *)run - offsetof(struct agent_cli, run));

  if (signal == SIGHUP && self->ignores_hangup)
    return;
  if (signal == SIGTERM && !self->draining) {
    self->draining = true;
    relay_agent_drain(self->agent, self->drain_ms);
  } else {
    close_agent(self);
  }
}

/* ---- the token -------------------------------------------------------- */

/* What it was read from is overwritten, too: only what the agent derived from
   it is needed. */
static void wipe_token(struct agent_cli *self) {
  volatile char *at = (char *)self->options.token;

  while (at != NULL && *at != '\0')
    *at++ = '\0';
}

/* The first line of the file, without blanks around it. */
static int read_token_file(struct agent_cli *self) {
  FILE *file = fopen(self->token_file, "re");
  char *line = NULL;
  int err = file == NULL ? -errno : 0;

  if (file != NULL) {
    setvbuf(file, NULL, _IONBF, 0); /* no copy of it in a buffer */
    line = fgets(self->token, sizeof(self->token), file);
    if (ferror(file))
      err = -errno;
    fclose(file);
  }
  if (err != 0)
    return cli_fail(&self->cli, "%s: %s", self->token_file,
                    relay_strerror(err));
  if (line != NULL)
    line[strcspn(line, " \t\r\n")] = '\0';
  if (line == NULL || line[0] == '\0')
    return cli_fail(&self->cli, "%s: there is no token in it",
                    self->token_file);
  return CLI_GO;
}

static int take_token(struct agent_cli *self) {
  const char *given = getenv("RELAY_TOKEN");
  int status = CLI_GO;

  if (self->token_file != NULL) {
    status = read_token_file(self);
    self->options.token = self->token;
  } else if (given != NULL && given[0] != '\0') {
    self->options.token = given;
  }
  self->options.plain = self->data != 0;
  return status;
}

/* ---- certificates ----------------------------------------------------- */

static int take_certificates(struct agent_cli *self) {
  relay_agent_options *options = &self->options;
  char error[ERROR_MAX];

  if (options->tls_cert == NULL && options->tls_key != NULL)
    return cli_usage(&self->cli, "--tls-key needs --tls-cert");
  if (options->tls_cert != NULL && options->tls_key == NULL)
    return cli_usage(&self->cli, "--tls-cert needs --tls-key");
  options->tls = self->tls;
  if (options->tls_cert == NULL && options->tls_ca == NULL)
    return CLI_GO;
  if (relay_tls_check(0, options->tls_cert, options->tls_key, options->tls_ca,
                      error, sizeof(error)) != 0)
    return cli_fail(&self->cli, "%s", error);
  return CLI_GO;
}

/* ---- from the programs ------------------------------------------------ */

void agent_cli_init(struct agent_cli *self, const char *program,
                    void (*on_visitor)(void *data, relay_agent *agent,
                                       const relay_visitor_info *visitor)) {
  cli_open_standard();
  memset(self, 0, sizeof(*self));
  relay_agent_options_init(&self->options, sizeof(self->options));
  self->options.data = self;
  self->options.on_visitor = on_visitor;
  self->options.on_established = on_established;
  self->options.on_end = on_end;
  self->options.log = cli_log_record;
  self->options.log_data = &self->log;
  self->log.format = RELAY_LOG_TEXT;
  self->log.level = RELAY_LOG_INFO;
  self->drain_ms = DRAIN_MS;
  self->cli.program = program;
  fill_table(self);
  self->cli.tables[0] = self->table;
}

/* An address may be given as a relay says it: "[::1]". */
static const char *strip_brackets(struct agent_cli *self, const char *host) {
  size_t length = strlen(host);

  if (host[0] != '[' || host[length - 1] != ']' ||
      length - 2 >= sizeof(self->host))
    return host;
  memcpy(self->host, host + 1, length - 2);
  return self->host;
}

/* With a port behind it, or as a URL has it, it would never be found. */
static bool is_host(const char *host) {
  struct sockaddr_in6 address;

  return strpbrk(host, "[]/ ") == NULL &&
         (strchr(host, ':') == NULL || uv_ip6_addr(host, 0, &address) == 0);
}

int agent_cli_parse(struct agent_cli *self, int argc, char **argv,
                    const char **operands) {
  const struct cli_option log_table[] = {
      CLI_LOG_OPTIONS(&self->log),
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};
  size_t last = 1;

  while (self->cli.tables[last] != NULL)
    last++;
  self->cli.tables[last] = log_table;
  int status = cli_parse(&self->cli, argc, argv, operands);
  self->cli.tables[last] = NULL;
  if (status != CLI_GO)
    return status;
  if (!cli_read_port(operands[1], 1, &self->options.port))
    return cli_usage(&self->cli, "RELAYPORT: '%s' is not a port (1-65535)",
                     operands[1]);
  if (operands[0][0] == '\0')
    return cli_usage(&self->cli, "RELAYHOST: it is empty");
  self->options.host = strip_brackets(self, operands[0]);
  if (!is_host(self->options.host))
    return cli_usage(&self->cli, "RELAYHOST: '%s' is not a host", operands[0]);
  self->options.once = self->once;
  self->options.mode = (relay_mode)self->mode;
  status = take_certificates(self);
  return status == CLI_GO ? take_token(self) : status;
}

/* A terminal that is gone ends an agent as Ctrl-C does, unless nohup said
   otherwise. */
static bool ignores_hangup(void) {
  struct sigaction action;

  return sigaction(SIGHUP, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* A shell gives 1024, which is soon too few. Two for each visitor, pipes for
   some, and the rest: no more than that, as libuv's table grows with it. */
static void raise_descriptors(const relay_agent_options *options) {
  rlim_t wanted = (rlim_t)options->max_visitors * 3 + 64;
  struct rlimit limit;

  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
    return;
  limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int agent_cli_run(struct agent_cli *self) {
  int err;

  if (strlen(self->options.name) > RELAY_AGENT_NAME_MAX)
    return cli_usage(&self->cli,
                     "the name '%s' is longer than %d bytes: give "
                     "another by --name",
                     self->options.name, RELAY_AGENT_NAME_MAX);
  if (self->state != NULL) {
    err = take_ticket(self);
    if (err != 0)
      return cli_fail(&self->cli, "%s: %s", self->state, relay_strerror(err));
  }
  raise_descriptors(&self->options);
  self->ignores_hangup = ignores_hangup();
  err = cli_run_init(&self->run, on_signal);
  if (err == 0) {
    uv_timer_init(&self->run.loop, &self->ticket_due);
    self->ticket_due.data = self;
    err = relay_agent_new(&self->agent, &self->run.loop, &self->options);
  }
  wipe_token(self);
  /* All else was looked at before. */
  if (err == UV_EINVAL && token_source(self) != NULL)
    return cli_fail(&self->cli, "%s: that is not a token", token_source(self));
  if (err != 0)
    return cli_fail(&self->cli, "cannot start: %s", relay_strerror(err));
  cli_run(&self->run);
  return self->status;
}
