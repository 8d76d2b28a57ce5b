/* SPDX-License-Identifier: MIT */
/*
 * What a script is seen to need of its process, for a host that confines it:
 * the words in its text, and in those of the Lua modules that it requires, and
 * so on. Nothing is run. Words in comments do not count; a name that is put
 * together at run time is not seen. Code that is not looked at, that of C
 * modules and what `load` makes, may need anything.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

enum kind { END, NAME, STRING, OTHER };

struct token {
  enum kind kind;
  const char *text; /* of a string, without its quotes */
  size_t length;
};

struct survey {
  struct policy *policy;
  int (*visit)(void *data, relay_lua_need need, const char *text);
  void *data;
  int result;
  char *text;       /* of the file that is read */
  const char *path; /* its path, on the stack of the state */
  const char *at;   /* what is next in the text */
  int line;
};

/* The stack of a survey: it, `package`, the files to read, those listed. */
enum { AT_SURVEY = 1, AT_PACKAGE, AT_FILES, AT_LISTED };

/* ---- words ------------------------------------------------------------ */

static bool is_word(char c) {
  return isalnum((unsigned char)c) || c == '_';
}

static void skip_to(struct survey *survey, const char *end) {
  for (; survey->at < end; survey->at++)
    survey->line += *survey->at == '\n';
}

/* "[[" or "[==[" at `at`: its length, or 0. */
static size_t long_bracket(const char *at) {
  size_t length = 1;

  if (*at != '[')
    return 0;
  while (at[length] == '=')
    length++;
  return at[length] == '[' ? length + 1 : 0;
}

/* Past a long string or comment that begins with a bracket of this length. */
static void take_long(struct survey *survey, size_t length,
                      struct token *token) {
  const char *end = survey->at + length;

  token->kind = STRING;
  token->text = end;
  for (; *end != '\0'; end++)
    if (*end == ']' && strspn(end + 1, "=") == length - 2 &&
        end[length - 1] == ']')
      break;
  token->length = (size_t)(end - token->text);
  skip_to(survey, *end != '\0' ? end + length : end);
}

static void take_string(struct survey *survey, struct token *token) {
  const char *end = survey->at + 1;

  token->kind = STRING;
  token->text = end;
  while (*end != '\0' && *end != '\n' && *end != *survey->at)
    end += *end == '\\' && end[1] != '\0' ? 2 : 1;
  token->length = (size_t)(end - token->text);
  skip_to(survey, *end != '\0' ? end + 1 : end);
}

static void skip_blanks(struct survey *survey) {
  struct token comment;

  for (;;) {
    skip_to(survey, survey->at + strspn(survey->at, " \t\r\n\f\v"));
    if (strncmp(survey->at, "--", 2) != 0)
      return;
    survey->at += 2;
    if (long_bracket(survey->at) != 0)
      take_long(survey, long_bracket(survey->at), &comment);
    else
      survey->at += strcspn(survey->at, "\n");
  }
}

static struct token next(struct survey *survey) {
  struct token token = {OTHER, NULL, 1};

  skip_blanks(survey);
  token.text = survey->at;
  if (*survey->at == '\0') {
    token.kind = END;
  } else if (is_word(*survey->at)) {
    token.kind = isdigit((unsigned char)*survey->at) ? OTHER : NAME;
    while (is_word(survey->at[token.length]))
      token.length++;
    survey->at += token.length;
  } else if (*survey->at == '"' || *survey->at == '\'') {
    take_string(survey, &token);
  } else if (long_bracket(survey->at) != 0) {
    take_long(survey, long_bracket(survey->at), &token);
  } else {
    survey->at++;
  }
  return token;
}

static bool is(const struct token *token, const char *text) {
  return token->kind != END && strlen(text) == token->length &&
         memcmp(token->text, text, token->length) == 0;
}

static bool is_one_of(const struct token *token, const char *const *texts) {
  while (*texts != NULL && !is(token, *texts))
    texts++;
  return *texts != NULL;
}

/* ---- telling ---------------------------------------------------------- */

static void tell(struct survey *survey, relay_lua_need need, const char *what,
                 const struct token *word) {
  char text[512];

  snprintf(text, sizeof(text), "%s:%d: %s%.*s", survey->path, survey->line,
           what, (int)word->length, word->text);
  if (survey->result == 0)
    survey->result = survey->visit(survey->data, need, text);
}

/* ---- modules ---------------------------------------------------------- */

/* package.searchpath(name, package[field]), or nil, on the stack. */
static const char *search(lua_State *L, const char *field) {
  lua_getfield(L, AT_PACKAGE, "searchpath");
  lua_pushvalue(L, -2);
  lua_getfield(L, AT_PACKAGE, field);
  lua_call(L, 2, 1);
  return lua_tostring(L, -1);
}

/* The path is on top, and taken. */
static void list_file(lua_State *L, struct survey *survey) {
  lua_pushvalue(L, -1);
  if (lua_rawget(L, AT_LISTED) == LUA_TNIL) {
    lua_pushvalue(L, -2);
    lua_pushboolean(L, 1);
    lua_rawset(L, AT_LISTED);
    lua_pushvalue(L, -2);
    lua_rawseti(L, AT_FILES, (lua_Integer)lua_rawlen(L, AT_FILES) + 1);
    if (survey->result == 0)
      survey->result = survey->visit(survey->data, RELAY_LUA_NEEDS_MODULE,
                                     lua_tostring(L, -2));
  }
  lua_pop(L, 2);
}

/* Code that is not looked at. */
static void need_anything(struct survey *survey, const char *what,
                          const struct token *word) {
  tell(survey, RELAY_LUA_NEEDS_SOCKETS, what, word);
  tell(survey, RELAY_LUA_NEEDS_FILES, what, word);
}

/* What is made by ourselves, where Lua would look for a file. */
static bool require_ours(struct survey *survey, const struct token *name) {
  static const char *const harmless[] = {
      "_G",          "coroutine", "debug",         "math",
      "os",          "package",   "relay",         "string",
      "table",       "utf8",      "socket.serial", "ssl.core",
      "socket.unix", NULL};
  static const char *const sockets[] = {"socket.core", "ssl.https", NULL};

  if (is_one_of(name, sockets))
    tell(survey, RELAY_LUA_NEEDS_SOCKETS, "require ", name);
  else if (is(name, "io"))
    tell(survey, RELAY_LUA_NEEDS_FILES, "require ", name);
  else
    return is_one_of(name, harmless);
  return true;
}

static void require_module(lua_State *L, struct survey *survey,
                           const struct token *name) {
  int top = lua_gettop(L);

  if (require_ours(survey, name))
    return;
  lua_pushlstring(L, name->text, name->length);
  if (!is(name, "luv") && search(L, "path") != NULL) {
    list_file(L, survey);
  } else {
    lua_settop(L, top + 1);
    if (search(L, "cpath") != NULL) {
      need_anything(survey, "require ", name);
      if (survey->result == 0)
        survey->result = survey->visit(survey->data, RELAY_LUA_NEEDS_MODULE,
                                       lua_tostring(L, -1));
    }
  }
  lua_settop(L, top);
}

/* After `require`: "x", ("x"), or (pcall(require, "x")). */
static void take_require(lua_State *L, struct survey *survey) {
  static const struct token made = {OTHER, "of a name that is made", 22};
  struct token token = next(survey);

  if (is(&token, "(") || is(&token, ","))
    token = next(survey);
  if (token.kind == STRING)
    require_module(L, survey, &token);
  else
    need_anything(survey, "require ", &made);
}

/* ---- texts ------------------------------------------------------------ */

static void look(lua_State *L, struct survey *survey) {
  static const char *const files[] = {"io", "cafile", "capath", "certificate",
                                      NULL};
  static const char *const code[] = {"dofile", "loadfile", "load", NULL};
  static const char *const of_os[] = {"remove", "rename", "tmpname", NULL};
  static const char *const of_relay[] = {"tcp", "resolve", NULL};
  struct token owner = {OTHER, "", 0}, point = owner, token;

  while ((token = next(survey)).kind != END && survey->result == 0) {
    bool is_field = is(&point, ".") || is(&point, "[");

    if (token.kind == NAME && is(&token, "require"))
      take_require(L, survey);
    else if (token.kind == NAME && is_one_of(&token, files))
      tell(survey, RELAY_LUA_NEEDS_FILES, "", &token);
    else if (token.kind == NAME && !is_field && is_one_of(&token, code))
      need_anything(survey, "", &token);
    else if (is_field && is(&owner, "os") && is_one_of(&token, of_os))
      tell(survey, RELAY_LUA_NEEDS_FILES, "os.", &token);
    else if (is_field && is_one_of(&token, of_relay))
      tell(survey, RELAY_LUA_NEEDS_SOCKETS, "", &token);
    owner = point;
    point = token;
  }
}

/* A file that cannot be read needs nothing: it cannot be loaded either. */
static void read_file(lua_State *L, struct survey *survey) {
  size_t size;

  survey->path = lua_tostring(L, -1);
  if (relay__lua_read_file(survey->path, &survey->text, &size) == 0) {
    survey->at = survey->text;
    survey->line = 1;
    look(L, survey);
  }
  free(survey->text);
  survey->text = NULL;
}

static int run(lua_State *L) {
  struct survey *survey = lua_touserdata(L, AT_SURVEY);
  lua_Integer i;

  lua_settop(L, AT_SURVEY);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "package");
  lua_replace(L, AT_PACKAGE);
  lua_newtable(L);
  lua_newtable(L);
  lua_pushstring(L, survey->policy->lua->script);
  list_file(L, survey);
  for (i = 1; lua_rawgeti(L, AT_FILES, i) != LUA_TNIL; i++) {
    read_file(L, survey);
    lua_pop(L, 1);
  }
  return 0;
}

/* ---- what others call ------------------------------------------------- */

static int each_need(struct policy *policy,
                     int (*visit)(void *data, relay_lua_need need,
                                  const char *text),
                     void *data) {
  struct survey survey = {.policy = policy, .visit = visit, .data = data};
  int status =
      relay__lua_protect(policy, run, &survey, policy->lua->options.load_ms);

  free(survey.text);
  return status == LUA_OK ? survey.result : UV_ENOMEM;
}

int relay_lua_each_need(relay_lua_t *lua,
                        int (*visit)(void *data, relay_lua_need need,
                                     const char *text),
                        void *data) {
  return lua->options.script != NULL ? each_need(lua->policy, visit, data) : 0;
}

void relay_lua_deny(relay_lua_t *lua, unsigned needs) {
  lua->denied = needs;
}

struct warning {
  struct relay_lua *lua;
  unsigned told;
};

static int warn(void *data, relay_lua_need need, const char *text) {
  struct warning *warning = data;
  unsigned bit = 1U << need;
  relay_log_field fields[] = {
      {"what", need == RELAY_LUA_NEEDS_SOCKETS ? "connections out" : "files",
       0},
      {"reason", text, 0}};

  if ((warning->lua->denied & ~warning->told & bit) != 0)
    relay__lua_log(warning->lua, RELAY_LOG_WARN,
                   "policy needs what this process has given up: only a "
                   "restart lets it have that",
                   fields, 2);
  warning->told |= bit;
  return 0;
}

void relay__lua_warn_denied(struct policy *policy) {
  struct warning warning = {policy->lua, 0};

  if (policy->lua->denied != 0 && policy->lua->options.script != NULL)
    (void)each_need(policy, warn, &warning);
}
