/* SPDX-License-Identifier: MIT */
/*
 * relay: hands out public addresses to agents. The library's relay half with
 * a command line: every option is a field of relay_options. Most of them are in
 * relay_settings.c.
 *
 * SIGTERM drains and then ends; a second one, or SIGINT, ends at once. SIGHUP
 * reloads the policy script, the tokens file and the certificates. `relay
 * token` is in token.c.
 */
#include <relay/relay.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli.h"
#include "confine.h"
#include "relay_settings.h"
#include "relay_trust.h"
#include "token.h"
#ifdef RELAY_WITH_LUA
#include <relay/lua.h>

#include "relay_script.h"
#endif

#define OPTIONS_MAX 32

struct program {
  struct cli cli;
  struct cli_log log;
  struct cli_run run;
  relay_options options;
  relay_t *relay;
#ifdef RELAY_WITH_LUA
  struct script script;
#endif
  struct trust trust;
  struct confine confine;
  struct settings settings;
  bool has_policy; /* that decides who may be an agent */
  bool draining;
  bool closing;
  int status;
};

/* ---- running ---------------------------------------------------------- */

static void close_script(struct program *self) {
#ifdef RELAY_WITH_LUA
  if (self->script.lua == NULL)
    return;
  relay_lua_attach(self->script.lua, NULL, NULL, 0);
  relay_lua_close(self->script.lua, NULL, NULL);
  self->script.lua = NULL;
#else
  (void)self;
#endif
}

static void close_relay(struct program *self) {
  if (self->closing)
    return;
  self->closing = true;
  if (self->relay != NULL)
    relay_close(self->relay, NULL, NULL);
  close_script(self);
  cli_run_ending(&self->run, self->status);
}

static void on_drained(void *data) {
  close_relay(data);
}

/* A record of the program's own, which a script's `log` may take. */
static void log_record(void *data, const relay_log_record *record) {
  struct program *self = data;
  const relay_policy *policy = self->options.policy;

  if ((int)record->level < self->log.level)
    return;
  if (policy == NULL || policy->log == NULL ||
      policy->log(policy->data, record) == 0)
    cli_log_record(&self->log, record);
}

static void log_event(struct program *self, relay_log_level level,
                      const char *event, const char *key, const char *text) {
  relay_log_field field = {key, text, 0};
  relay_log_record record = {sizeof(record), level, event, &field,
                             text != NULL ? 1 : 0};

  log_record(self, &record);
}

static void reload(struct program *self) {
  bool has_any =
      self->relay != NULL && trust_reload(&self->options, self->relay);

#ifdef RELAY_WITH_LUA
  if (self->script.lua != NULL && self->relay != NULL) {
    relay_lua_reload(self->script.lua);
    return;
  }
#endif
  if (!has_any)
    log_event(self, RELAY_LOG_INFO, "nothing to reload", "", NULL);
}

static void on_signal(struct cli_run *run, int signal) {
  struct program *self =
      (struct program *)((char *)run - offsetof(struct program, run));

  if (signal == SIGHUP) {
    reload(self);
  } else if (signal == SIGTERM && !self->draining && self->relay != NULL) {
    self->draining = true;
    relay_drain(self->relay, self->options.drain_ms, on_drained, self);
  } else {
    close_relay(self);
  }
}

/* What "every address" means here, for an error about it. */
static const char *wildcard_host(void) {
  int fd = socket(AF_INET6, SOCK_STREAM, 0);

  if (fd < 0)
    return "0.0.0.0";
  close(fd);
  return "::";
}

static const char *open_bracket(const char *host) {
  return strchr(host, ':') != NULL && host[0] != '[' ? "[" : "";
}

static const char *close_bracket(const char *host) {
  return *open_bracket(host) != '\0' ? "]" : "";
}

static void open_relay(struct program *self) {
  const char *host = self->options.listen_host;
  const char *fault = relay_options_fault(&self->options);
  int err;

  if (fault != NULL) {
    self->status = cli_fail(&self->cli, "this value cannot be: %s", fault);
    close_relay(self);
    return;
  }
  err = relay_new(&self->relay, &self->run.loop, &self->options);
  if (err == RELAY_EWORKERS) { /* the log says why */
    self->status = cli_fail(&self->cli, "%s", relay_strerror(err));
    close_relay(self);
    return;
  }
  if (err == RELAY_ESTATE) { /* all else was looked at before */
    self->status =
        cli_fail(&self->cli, "--state: %s cannot be used: another relay has it",
                 self->options.state);
    close_relay(self);
    return;
  }
  if (err == UV_EMFILE) {
    self->status =
        cli_fail(&self->cli, "too few descriptors: raise --max-fds, "
                             "or the limit of the system (ulimit -n)");
    close_relay(self);
    return;
  }
  if (err != 0) {
    host = host != NULL ? host : wildcard_host();
    self->status = cli_fail(&self->cli, "cannot listen on %s%s%s:%u: %s",
                            open_bracket(host), host, close_bracket(host),
                            self->options.port, relay_strerror(err));
    close_relay(self);
    return;
  }
#ifdef RELAY_WITH_LUA
  char error[1024];

  if (self->script.lua != NULL &&
      relay_lua_attach(self->script.lua, self->relay, error, sizeof(error)) !=
          0) {
    self->status = cli_fail(&self->cli, "%s", error);
    close_relay(self);
    return;
  }
#endif
  host = relay_host(self->relay);
  confine_log(&self->confine, log_record, self);
  if (!self->has_policy && trust_is_open(&self->options))
    log_event(self, RELAY_LOG_WARN, "open to anyone", "reason",
              "no tokens are configured");
  err = cli_say("listening on %s%s%s:%u", open_bracket(host), host,
                close_bracket(host), relay_port(self->relay));
  if (err != 0) /* it relays all the same */
    log_event(self, RELAY_LOG_WARN, "address not printed", "reason",
              relay_strerror(err));
}

#ifdef RELAY_WITH_LUA
static void on_started(void *data, const char *error) {
  struct program *self = data;

  if (self->closing)
    return;
  if (error == NULL && !self->script.check) {
    open_relay(self);
    return;
  }
  if (error != NULL) {
    self->status = cli_fail(&self->cli, "%s", error);
  } else {
    script_report(&self->script);
    self->status = cli_printed(&self->cli);
  }
  close_relay(self);
}
#endif

static void start(struct program *self) {
#ifdef RELAY_WITH_LUA
  if (self->script.lua != NULL) {
    self->options.policy = relay_lua_policy(self->script.lua);
    self->has_policy = relay_lua_has_hook(self->script.lua, "auth") != 0;
    relay_lua_start(self->script.lua, on_started, self);
    return;
  }
#endif
  open_relay(self);
}

/* ---- options ---------------------------------------------------------- */

/* What is about this program alone. */
static void list_own(struct program *self, struct cli_option *table) {
  const struct cli_option options[] = {
#ifdef RELAY_WITH_LUA
      SCRIPT_OPTIONS(&self->script, &self->options),
#endif
      CLI_LOG_OPTIONS(&self->log),
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};

  memcpy(table, options, sizeof(options));
}

/* The script is read by whom the relay will be, as it is again on a reload. */
static int read_line(struct program *self, int argc, char **argv,
                     const char **operand) {
#ifdef RELAY_WITH_LUA
  int status = script_find(&self->cli, argc, argv, operand);
#else
  int status = cli_parse(&self->cli, argc, argv, operand);
#endif

  if (status == CLI_GO)
    status = confine_become(&self->confine, &self->cli);
#ifdef RELAY_WITH_LUA
  if (status == CLI_GO)
    status = script_load(&self->script, &self->run.loop, &self->cli, &self->log,
                         argc, argv, operand);
#endif
  return status;
}

static int parse(struct program *self, int argc, char **argv) {
  struct cli_option tables[CLI_TABLES_MAX - 1][OPTIONS_MAX];
  const char *operand;
  int status;

  settings_list_addresses(&self->settings, &self->options, tables[0]);
  list_own(self, tables[1]);
  settings_list_caps(&self->options, tables[2]);
  settings_list_times(&self->options, tables[3]);
  trust_list(&self->trust, &self->options, tables[4]);
  confine_list(&self->confine, tables[5]);
  for (size_t i = 0; i < CLI_TABLES_MAX - 1; i++)
    self->cli.tables[i] = tables[i];
  status = read_line(self, argc, argv, &operand);
  memset(self->cli.tables, 0, sizeof(self->cli.tables));
  if (status != CLI_GO)
    return status;
  if (!cli_read_port(operand, 0, &self->options.port))
    return cli_usage(&self->cli, "PORT: '%s' is not a port (0-65535)", operand);
  self->options.log_level = (relay_log_level)self->log.level;
  if (self->log.format == CLI_LOG_NONE)
    self->options.log = NULL;
  status = settings_take(&self->settings, &self->cli, &self->options);
  if (status == CLI_GO)
    status = confine_check(&self->confine, &self->cli);
  if (status == CLI_GO)
    status = trust_take(&self->trust, &self->cli, &self->options);
  return status;
}

/* Before `start`, and so before a look-up there begins threads. */
static int go_in(struct program *self) {
  const relay_options *o = &self->options;
  int status;

  trust_needs(o, &self->confine);
  status = confine_need_state(&self->confine, &self->cli, o->state);
#ifdef RELAY_WITH_LUA
  script_needs(&self->script, &self->confine);
#endif
  if (status == CLI_GO)
    status = confine(&self->confine, &self->cli);
#ifdef RELAY_WITH_LUA
  script_confined(&self->script, &self->confine);
#endif
  if (status == CLI_GO && self->confine.print) {
    confine_say(&self->confine);
    status = cli_printed(&self->cli);
  }
  return status;
}

/* A script is loaded on the loop, so that is there first. */
static int run(struct program *self, int argc, char **argv) {
  int err = cli_run_init(&self->run, on_signal);
  int status;

  if (err != 0)
    return cli_fail(&self->cli, "cannot start: %s", relay_strerror(err));
  status = parse(self, argc, argv);
  if (status == CLI_GO)
    status = go_in(self);
  if (status == CLI_GO)
    start(self);
  else
    self->status = status;
  if (status != CLI_GO)
    close_relay(self);
  cli_run(&self->run);
  return self->status;
}

int main(int argc, char **argv) {
  static const char *const operands[] = {"PORT", NULL};
  struct program self;

  cli_open_standard();
  if (argc > 1 && strcmp(argv[1], "token") == 0)
    return token_main(argc - 1, argv + 1);
  memset(&self, 0, sizeof(self));
  relay_options_init(&self.options, sizeof(self.options));
  self.options.log = cli_log_record;
  self.options.log_data = &self.log;
  self.log.format = RELAY_LOG_TEXT;
  self.log.level = RELAY_LOG_INFO;
  self.cli.program = "relay";
  self.cli.operands = operands;
  self.cli.about =
      "Hands out public addresses to agents that connect to PORT (0: any free\n"
      "one) and joins each visitor of an address to its agent. Prints\n"
      "'listening on HOST:PORT' once it does. SIGTERM drains, SIGHUP reloads\n"
      "script, tokens and certificates.\n"
      "\n"
      "'relay token' makes, lists and revokes tokens: 'relay token --help'.";
#ifdef RELAY_WITH_LUA
  script_init(&self.script);
#endif
  self.status = run(&self, argc, argv);
#ifdef RELAY_WITH_LUA
  script_free(&self.script);
#endif
  confine_free(&self.confine);
  return self.status;
}
