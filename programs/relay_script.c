/* SPDX-License-Identifier: MIT */
/*
 * See relay_script.h. A script's options become arguments in front of those of
 * the command line: the last one counts, and both are checked by one table.
 */
#include "relay_script.h"

#include <ctype.h>
#include <relay/lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void script_init(struct script *script) {
  relay_lua_options options;

  relay_lua_options_init(&options, sizeof(options));
  memset(script, 0, sizeof(*script));
  script->memory_bytes = options.memory_bytes;
  script->budget_ms = options.budget_ms;
}

/* ---- a list of arguments ---------------------------------------------- */

struct arguments {
  char **list;
  int count;
  char *port; /* the script's, not in the list */
  bool failed;
};

static void free_arguments(struct arguments *arguments) {
  for (int i = 0; i < arguments->count; i++)
    free(arguments->list[i]);
  free(arguments->list);
}

static void add(struct arguments *arguments, const char *text) {
  char **more =
      realloc(arguments->list, (size_t)(arguments->count + 2) * sizeof(*more));

  if (more == NULL) {
    arguments->failed = true;
    return;
  }
  arguments->list = more;
  more[arguments->count] = strdup(text);
  arguments->failed = arguments->failed || more[arguments->count] == NULL;
  more[++arguments->count] = NULL;
}

static const struct cli_option *find(const struct cli *cli, const char *name) {
  for (size_t i = 0; cli->tables[i] != NULL; i++)
    for (const struct cli_option *o = cli->tables[i]; o->name != NULL; o++)
      if (strcmp(o->name, name) == 0)
        return o;
  return NULL;
}

/* Whether the command line holds an operand, and whether it names a script, or
   means to: then the port may be left out. */
static bool has_operand(const struct cli *cli, int argc, char **argv,
                        bool *has_script) {
  bool found = false;

  for (int i = 1; i < argc; i++) {
    const struct cli_option *option;

    if (strcmp(argv[i], "--") == 0)
      return found || i + 1 < argc;
    if (argv[i][0] != '-' || argv[i][1] == '\0') {
      found = true;
      continue;
    }
    if (strncmp(argv[i], "--script", 8) == 0 &&
        (argv[i][8] == '\0' || argv[i][8] == '='))
      *has_script = true;
    if (strcmp(argv[i], "--check") == 0)
      *has_script = true;
    option = strncmp(argv[i], "--", 2) == 0 ? find(cli, argv[i] + 2) : NULL;
    if (option != NULL && option->kind != CLI_FLAG)
      i++;
  }
  return found;
}

/* ---- the script's options --------------------------------------------- */

static bool is_word(char c) {
  return isalnum((unsigned char)c) || c == '_';
}

/* Whether a line of the script sets the option: max-agents is max_agents. */
static bool sets(const char *line, const char *option) {
  size_t length = strlen(option), i;

  for (const char *at = line; *at != '\0'; at++) {
    for (i = 0; i < length; i++)
      if (at[i] != option[i] && (at[i] != '_' || option[i] != '-'))
        break;
    if (i < length || is_word(at[length]) || (at != line && is_word(at[-1])))
      continue;
    i += strspn(at + length, " \t\"']");
    if (at[i] == '=' && at[i + 1] != '=')
      return true;
  }
  return false;
}

/* "FILE:LINE", or "FILE" where the line is not found. */
static void locate(const char *path, const char *option, char *where,
                   size_t size) {
  FILE *file = fopen(path, "r");
  char *line = NULL;
  size_t room = 0;

  snprintf(where, size, "%s", path);
  for (int i = 1; file != NULL && getline(&line, &room, file) >= 0; i++)
    if (sets(line, option))
      snprintf(where, size, "%s:%d", path, i);
  free(line);
  if (file != NULL)
    fclose(file);
}

struct visit {
  const struct cli *cli;
  const char *path;
  struct arguments *arguments;
};

/* Reads one option of the script by itself, to say where it is wrong. */
static int check_option(const struct visit *visit, const char *key, char *text,
                        const char *value) {
  static char port[] = "0";
  char *list[] = {text, text, port, NULL};
  struct cli cli = *visit->cli;
  char where[1024];
  const char *operand;
  unsigned number;

  locate(visit->path, key, where, sizeof(where));
  cli.where = where;
  if (strcmp(key, "port") != 0)
    return cli_parse(&cli, 3, list, &operand);
  if (!cli_read_port(value, 0, &number))
    return cli_usage(&cli, "PORT: '%s' is not a port (0-65535)", value);
  return CLI_GO;
}

/* What is settled before the script is read. */
static const char *const not_for_scripts[] = {
    "script",        "check", "unsafe",  "user",
    "print-sandbox", "help",  "version", NULL};

static int add_option(void *data, const char *key, const char *value) {
  struct visit *visit = data;
  const struct cli_option *option = find(visit->cli, key);
  size_t size = strlen(key) + strlen(value) + 4;
  char *text;

  for (size_t i = 0; not_for_scripts[i] != NULL; i++)
    if (strcmp(key, not_for_scripts[i]) == 0)
      return cli_fail(visit->cli, "%s: option '%s' is for the command line",
                      visit->path, key);
  if (strcmp(key, "port") == 0) {
    if (check_option(visit, key, NULL, value) != CLI_GO)
      return CLI_FAILED;
    visit->arguments->port = strdup(value);
    return visit->arguments->port != NULL ? 0 : UV_ENOMEM;
  }
  if (option != NULL && option->kind == CLI_FLAG && strcmp(value, "false") == 0)
    return 0;
  text = malloc(size);
  if (text == NULL)
    return UV_ENOMEM;
  if (option != NULL && option->kind == CLI_FLAG && strcmp(value, "true") == 0)
    snprintf(text, size, "--%s", key);
  else
    snprintf(text, size, "--%s=%s", key, value);
  add(visit->arguments, text);
  free(text);
  if (visit->arguments->failed)
    return UV_ENOMEM;
  text = visit->arguments->list[visit->arguments->count - 1];
  return check_option(visit, key, text, value) != CLI_GO ? CLI_FAILED : 0;
}

/* ---- loading ---------------------------------------------------------- */

static void write_line(void *data, relay_log_level level, const char *text,
                       size_t length) {
  struct cli_log *log = data;
  char *line;

  if (log->format == CLI_LOG_NONE || (int)level < log->level)
    return;
  line = malloc(length + 1);
  if (line == NULL)
    return;
  memcpy(line, text, length);
  line[length] = '\n';
  cli_log_line(log, line, length + 1);
  free(line);
}

static int load(struct script *script, uv_loop_t *loop, const struct cli *cli,
                struct cli_log *log) {
  relay_lua_options options;
  char error[1024];

  relay_lua_options_init(&options, sizeof(options));
  options.script = script->path;
  options.memory_bytes = (size_t)script->memory_bytes;
  options.budget_ms = (unsigned)script->budget_ms;
  options.unsafe = script->unsafe;
  options.log = cli_log_record;
  options.line = write_line;
  options.log_data = log;
  if (relay_lua_new(&script->lua, loop, &options, error, sizeof(error)) != 0)
    return cli_fail(cli, "%s", error);
  return CLI_GO;
}

/* What this says of all but the script is said again. */
int script_find(const struct cli *cli, int argc, char **argv,
                const char **operands) {
  static char port[] = "0";
  char **list = malloc(((size_t)argc + 2) * sizeof(*list));
  bool named = false;
  bool operand = has_operand(cli, argc, argv, &named);
  int status;

  if (list == NULL)
    return cli_fail(cli, "%s", uv_strerror(UV_ENOMEM));
  memcpy(list, argv, (size_t)argc * sizeof(*list));
  if (named && !operand)
    list[argc++] = port;
  list[argc] = NULL;
  status = cli_parse(cli, argc, list, operands);
  free(list);
  return status;
}

int script_load(struct script *script, uv_loop_t *loop, const struct cli *cli,
                struct cli_log *log, int argc, char **argv,
                const char **operands) {
  struct arguments all = {NULL, 0, NULL, false};
  struct visit visit = {cli, NULL, &all};
  bool named = false;
  bool operand = has_operand(cli, argc, argv, &named);
  bool has_options;
  int status;

  if (script->path == NULL)
    return script->check ? cli_usage(cli, "--check needs --script") : CLI_GO;
  status = load(script, loop, cli, log);
  if (status != CLI_GO)
    return status;
  add(&all, argv[0]);
  visit.path = script->path;
  status = relay_lua_each_option(script->lua, add_option, &visit);
  if (status < 0)
    all.failed = true;
  has_options = all.count > 1 || all.port != NULL;
  for (int i = 1; i < argc; i++)
    add(&all, argv[i]);
  if (!operand && all.port != NULL)
    add(&all, all.port);
  else if (!operand && script->check)
    add(&all, "0");
  script->arguments = all.list; /* texts of options point into it */
  script->argument_count = all.count;
  free(all.port);
  if (status == CLI_FAILED)
    return status;
  status = all.failed ? cli_fail(cli, "%s", uv_strerror(UV_ENOMEM))
                      : cli_parse(cli, all.count, all.list, operands);
  if (status != CLI_GO && has_options)
    cli_fail(cli, "that was with the options of %s", script->path);
  if (status == CLI_GO)
    relay_lua_limit(script->lua, (size_t)script->memory_bytes,
                    (unsigned)script->budget_ms);
  return status;
}

/* ---- what it needs ---------------------------------------------------- */

static int take_need(void *data, relay_lua_need need, const char *text) {
  struct confine *confine = data;

  if (need == RELAY_LUA_NEEDS_SOCKETS)
    confine_need(confine, &confine->connect, text);
  else if (need == RELAY_LUA_NEEDS_FILES)
    confine_need(confine, &confine->files, text);
  else
    confine_need_file(confine, text, "the script");
  return 0;
}

void script_needs(const struct script *script, struct confine *confine) {
  if (script->lua == NULL)
    return;
  if (script->unsafe) {
    confine_need(confine, &confine->connect, "--unsafe");
    confine_need(confine, &confine->exec, "--unsafe");
    confine_need(confine, &confine->files, "--unsafe");
  }
  if (relay_lua_each_need(script->lua, take_need, confine) != 0)
    confine->failed = true;
}

void script_confined(const struct script *script,
                     const struct confine *confine) {
  unsigned denied = 0;

  if (confine->connect.why[0] == '\0')
    denied |= 1U << RELAY_LUA_NEEDS_SOCKETS;
  if (confine->files.why[0] == '\0')
    denied |= 1U << RELAY_LUA_NEEDS_FILES;
  if (script->lua != NULL && confine_is_on(confine))
    relay_lua_deny(script->lua, denied);
}

void script_free(struct script *script) {
  struct arguments all = {script->arguments, script->argument_count, NULL,
                          false};

  free_arguments(&all);
}

/* ---- what --check says ------------------------------------------------- */

static int say_option(void *data, const char *key, const char *value) {
  const struct script *script = data;

  cli_say("%s: option %s = %s", script->path, key, value);
  return 0;
}

static int say_listen(void *data, const char *host, unsigned port) {
  const struct script *script = data;
  bool is_ipv6 = host != NULL && strchr(host, ':') != NULL;

  cli_say("%s: listens on %s%s%s:%u", script->path, is_ipv6 ? "[" : "",
          host != NULL ? host : "*", is_ipv6 ? "]" : "", port);
  return 0;
}

void script_report(const struct script *script) {
  char hooks[256];
  size_t length = 0;

  hooks[0] = '\0';
  for (const char *const *name = relay_lua_hooks(); *name != NULL; name++)
    if (relay_lua_has_hook(script->lua, *name))
      length += (size_t)snprintf(hooks + length, sizeof(hooks) - length, " %s",
                                 *name);
  cli_say("%s: ok:%s", script->path, length != 0 ? hooks : " no hooks");
  relay_lua_each_option(script->lua, say_option, (void *)script);
  relay_lua_each_listen(script->lua, say_listen, (void *)script);
}
