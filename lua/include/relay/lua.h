/* SPDX-License-Identifier: MIT */
/*
 * A policy written in Lua 5.4: a script returns a table of functions, and this
 * is the relay_policy that calls them. It stands on <relay/relay.h> alone. The
 * script has a Lua state of its own, or uses one that the host has.
 *
 *   relay_lua_new      loads the script and checks what it returned
 *   relay_lua_start    runs its `start`; then make the relay, with
 *   relay_lua_policy   as its policy, and
 *   relay_lua_attach   bind the two together
 *   relay_lua_reload   as often as wanted
 *   relay_lua_close    once the relay is closed
 *
 * Every hook runs in a coroutine of its own and may wait; a script's errors,
 * endless loops and hunger for memory end the hook and nothing else. Every
 * call is made on the thread of the loop, and none from within a log function.
 */
#ifndef RELAY_LUA_H
#define RELAY_LUA_H

#include <relay/relay.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct relay_lua relay_lua_t;

/* A whole line for the log, made by the script's `log` hook. Its bytes are the
   script's own; `text` is terminated. */
typedef void (*relay_lua_line_fn)(void *data, relay_log_level level,
                                  const char *text, size_t length);

struct lua_State;

/*
 * With a state of the host's, `script` is loaded into that, or, where it is
 * NULL, the table of hooks is the value on top of the state's stack. Nothing is
 * popped.
 *
 * The state stays the host's: it is never closed here, and has to outlive
 * on_close. Its globals, libraries, allocator and stack are as they were, and
 * the hooks see them: there is no sandbox, no cap on memory, and `unsafe` means
 * nothing. What is put there, by relay_lua_new and until all is closed, is the
 * module `relay` in package.loaded, and values in the registry. Hooks run in
 * coroutines of their own, and only those have the count hook that budget_ms
 * takes. A hook cannot wait within a coroutine that it made itself. A state has
 * one relay_lua at a time.
 */
typedef struct relay_lua_options {
  size_t size;
  const char *script;     /* path, as it is to appear in errors. Copied */
  size_t memory_bytes;    /* most that one loaded script may hold */
  unsigned budget_ms;     /* CPU time of one entry into the script; 0: any */
  unsigned load_ms;       /* CPU time of loading it; 0: any */
  uint64_t wait_ms;       /* longest wait in a hook that decides nothing */
  uint64_t drain_ms;      /* how long hooks under way outlive a reload */
  int unsafe;             /* 1: the whole standard library, bytecode too */
  relay_log_fn log;       /* NULL: nothing is logged */
  relay_lua_line_fn line; /* NULL: such a line goes to `log` as an event */
  void *log_data;
  struct lua_State *state; /* the host's. NULL: it gets one of its own */
} relay_lua_options;

/* Fills every option with its default. */
RELAY_API void relay_lua_options_init(relay_lua_options *options, size_t size);

/*
 * Loads the script: it is run, and the table it returns is checked. 0; or
 * UV_ENOMEM; or RELAY_EHOOK, and then `error` (may be NULL) holds one line,
 * "FILE:LINE: what is wrong". On failure nothing is left but closing handles.
 * UV_EBUSY when the host's state has a relay_lua, UV_EINVAL when there is
 * neither a script nor a table.
 */
RELAY_API int relay_lua_new(relay_lua_t **out, struct uv_loop_s *loop,
                            const relay_lua_options *options, char *error,
                            size_t error_size);

/* `error` is NULL when it went well. */
typedef void (*relay_lua_done_fn)(void *data, const char *error);

/* Runs the script's `start`. `on_started` is called once: from within, or
   later if `start` waits. */
RELAY_API void relay_lua_start(relay_lua_t *lua, relay_lua_done_fn on_started,
                               void *data);

/* The policy to hand to relay_new. Good until relay_lua_close. */
RELAY_API const relay_policy *relay_lua_policy(relay_lua_t *lua);

/*
 * Gives the script its relay, and opens what it asked for with relay.listen;
 * a negative code when one of these cannot be had, said in `error`. NULL takes
 * the relay away: to be called when relay_close was, before the loop runs on.
 */
RELAY_API int relay_lua_attach(relay_lua_t *lua, relay_t *relay, char *error,
                               size_t error_size);

/*
 * Loads the script anew: save, start, swap, stop; whatever fails on the way
 * leaves the old one in force and is logged. It begins in the next turn of the
 * loop, and goes on by itself; one that is asked for meanwhile follows it.
 * UV_ECANCELED after relay_lua_close, UV_ENOTSUP where there is no script. In a
 * state of the host's, modules that the script requires are not loaded anew.
 */
RELAY_API int relay_lua_reload(relay_lua_t *lua);

/* Runs `stop("exit")`, then frees everything and calls `on_close` (may be
   NULL) from the loop. Idempotent. */
RELAY_API void relay_lua_close(relay_lua_t *lua, relay_close_fn on_close,
                               void *data);

/* Calls `visit` for each of the script's options, named as on a command line
   ("max-agents"); a nonzero answer stops and is returned. */
RELAY_API int relay_lua_each_option(relay_lua_t *lua,
                                    int (*visit)(void *data, const char *key,
                                                 const char *value),
                                    void *data);

/* Sets memory_bytes and budget_ms anew, where the script's own options say so.
   Scripts to come are loaded within them. */
RELAY_API void relay_lua_limit(relay_lua_t *lua, size_t memory_bytes,
                               unsigned budget_ms);

/* Calls `visit` for each public port that the script declared with
   relay.listen; host NULL: as the relay listens. A nonzero answer stops and is
   returned. */
RELAY_API int relay_lua_each_listen(relay_lua_t *lua,
                                    int (*visit)(void *data, const char *host,
                                                 unsigned port),
                                    void *data);

/*
 * For a host that confines its process: what the script is seen to need of it,
 * by the words in its text and in those of the Lua modules that it requires.
 * Nothing is run, so what is put together at run time is not seen. For a script
 * in a file only.
 */
typedef enum relay_lua_need {
  RELAY_LUA_NEEDS_SOCKETS, /* connects, or looks names up */
  RELAY_LUA_NEEDS_FILES,   /* opens files, which cannot be told */
  RELAY_LUA_NEEDS_MODULE   /* reads this file, whenever it is loaded anew */
} relay_lua_need;

/* Calls `visit` for each need: `text` is the path of a module, for the others
   where it was seen, "FILE:LINE: WORD". The script itself is the first module.
   A nonzero answer stops and is returned; UV_ENOMEM. Before relay_lua_start. */
RELAY_API int relay_lua_each_need(relay_lua_t *lua,
                                  int (*visit)(void *data, relay_lua_need need,
                                               const char *text),
                                  void *data);

/* The process can no longer have these needs, `1 << RELAY_LUA_NEEDS_…` or'ed: a
   script that is loaded anew and has one is warned of, and an error of
   connecting says what it comes from. */
RELAY_API void relay_lua_deny(relay_lua_t *lua, unsigned needs);

/* Whether the script defines a hook; the names, NULL-terminated. */
RELAY_API int relay_lua_has_hook(const relay_lua_t *lua, const char *name);
RELAY_API const char *const *relay_lua_hooks(void);

#ifdef __cplusplus
}
#endif
#endif
