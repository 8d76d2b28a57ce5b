/* SPDX-License-Identifier: MIT */
/*
 * The agent half: asks a relay for a public address, keeps it across outages,
 * and serves each visitor that comes through it.
 *
 * Life: relay_agent_new starts resolving and connecting at once, and goes on
 * reconnecting until relay_agent_close. All callbacks run inside uv_run on the
 * loop given, never from within a call of this header. relay_agent_close may be
 * called from any callback; the object is freed after its close callback.
 */
#ifndef RELAY_AGENT_H
#define RELAY_AGENT_H

#include <relay/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct relay_agent relay_agent;

/* A visitor, borrowed for the length of the on_visitor callback; `id` is for
   keeping. Addresses are text: "192.0.2.1:80", "[2001:db8::1]:80". */
typedef struct relay_visitor_info {
  size_t size;
  const char *id;   /* up to 64 characters */
  const char *from; /* the visitor's own address */
  const char *to;   /* the public address it reached, as the relay saw it */
} relay_visitor_info;

/* What an ended visitor leaves behind. in: visitor to agent; out: the way
   back. reason is 0 after both sides ended in order. */
typedef struct relay_visitor_end {
  size_t size;
  const char *id;
  const char *from;
  uint64_t bytes_in;
  uint64_t bytes_out;
  uint64_t duration_ms;
  int reason;
} relay_visitor_end;

/* As the protocol has it: of a longer one the relay would keep nothing. */
#define RELAY_AGENT_NAME_MAX 64

typedef struct relay_agent_options {
  size_t size;

  /* Where the relay is. Copied. */
  const char *host;
  unsigned port;

  /* What to ask for. */
  unsigned want_port; /* 0: the relay chooses */
  const char *name;   /* tells an owner's leases apart; at most
                         RELAY_AGENT_NAME_MAX bytes. NULL: none */
  unsigned pool;      /* idle data connections kept ahead of need */

  /* How. */
  relay_mode mode;
  int once; /* end at the first loss instead of reconnecting */

  /* Times, in milliseconds. */
  uint64_t connect_ms;     /* one attempt to reach the relay, or a target */
  uint64_t heartbeat_ms;   /* between PINGs; the relay's OK overrides it */
  uint64_t dead_ms;        /* without a PONG: the relay is lost */
  uint64_t backoff_min_ms; /* first wait before reconnecting; jittered */
  uint64_t backoff_max_ms;
  uint64_t pool_age_ms;    /* an idle data connection is replaced after this */
  uint64_t fin_timeout_ms; /* half-closed and silent: reset; 0: never */
  uint64_t idle_ms;        /* silent both ways: reset; 0: never */
  uint64_t visit_ms;       /* a visitor must be served within this */

  unsigned max_visitors; /* at the same time; more are rejected */

  /* Callbacks; each may be NULL but on_visitor. `data` is handed to all. */
  void *data;

  /* An address was given: at first, and each time the connection is back.
     `fresh` is 1 when it differs from the last one or there was none. */
  void (*on_established)(void *data, relay_agent *agent, const char *host,
                         unsigned port, int fresh);

  /* A visitor waits. Answer, now or later (within visit_ms), with one
     relay_agent_serve_* or relay_agent_reject. */
  void (*on_visitor)(void *data, relay_agent *agent,
                     const relay_visitor_info *visitor);

  /* A visitor that was served, or could not be, has ended. Once for each. */
  void (*on_visitor_end)(void *data, relay_agent *agent,
                         const relay_visitor_end *end);

  /* The agent ended by itself: refused for good, or lost with `once`. `error`
     is negative; `reason` is a sentence with the relay's own words. Nothing
     follows but the close callback once the host calls relay_agent_close. */
  void (*on_end)(void *data, relay_agent *agent, int error, const char *reason);

  relay_log_fn log;
  void *log_data;

  /* The ticket that an earlier process was last given, to have its address
     back; one that is void or longer than a line does no harm. Copied. NULL:
     none. */
  const char *ticket;
  /* A new ticket, with each OK, before on_established. To be kept as a secret:
     whoever has it can take the address. */
  void (*on_ticket)(void *data, relay_agent *agent, const char *ticket);

  /* A token of the relay's, `id.secret`; copied. With one, all is TLS, the
     relay has to prove that it knows the token, too, and one that does not gets
     nothing. NULL: none. */
  const char *token;
  int plain; /* with a token: visitors' bytes need not be encrypted, if the
                relay agrees */

  /* The relay proves who it is by a certificate, not by a token; if there is a
     token, it is told to nobody else. Each of the texts below means that, too.
     Those are paths of PEM files, but for tls_name; copied. The files are read
     at once, and again after a certificate was not believed. */
  int tls;
  const char *tls_ca;   /* authorities to believe, or the relay's certificate
                           itself; NULL: those that the system believes */
  const char *tls_name; /* name or address the certificate has to be for; NULL:
                           `host` */
  const char *tls_cert; /* our own, where the relay wants one; or NULL, and
                           tls_key with it */
  const char *tls_key;

  /* Threads that only move the bytes of visitors that are being served, each
     on a loop of its own; at most 64. 0, the default: none, all is done on the
     host's loop. With some, everything else stays as it is: each call and
     callback is made on the thread of that loop. All signals are blocked in
     them; their stack is 512 KiB. relay_agent_new starts them:
     RELAY_EWORKERS when it cannot, with a log record that says why. They have
     ended when on_close runs. */
  unsigned workers;
} relay_agent_options;

typedef void (*relay_agent_close_fn)(void *data);

/* Fills every option with its default. `size` is sizeof(relay_agent_options)
   as the caller knows it. */
RELAY_API void relay_agent_options_init(relay_agent_options *options,
                                        size_t size);

/*
 * Makes an agent on `loop` and starts it. Everything in options is copied.
 * 0; UV_EINVAL when host, port, on_visitor or one of tls_cert and tls_key are
 * missing, there are too many
 * workers, `name` is too long or `token` is none; RELAY_ECERT for files that
 * cannot be used, with a log record that says why (as relay_tls_check does);
 * UV_ENOMEM, or what libuv says. An unreachable relay is no error here: it is
 * retried (or told by on_end with `once`).
 */
RELAY_API int relay_agent_new(relay_agent **agent, struct uv_loop_s *loop,
                              const relay_agent_options *options);

/* Serves the visitor by sending every byte back. 0; RELAY_EGONE when there is
   no such visitor any more; UV_EALREADY when it was answered before. */
RELAY_API int relay_agent_serve_echo(relay_agent *agent, const char *id);

/*
 * Serves the visitor by connecting to a local service (AF_INET, AF_INET6 or
 * AF_UNIX), `address_len` bytes of address. `preamble`, at most 512 bytes, is
 * sent to the service before the visitor's first byte (a PROXY header, say);
 * copied. If the service cannot be reached, the visitor is rejected. Errors as
 * for echo.
 */
RELAY_API int relay_agent_serve_address(relay_agent *agent, const char *id,
                                        const struct sockaddr *address,
                                        unsigned address_len,
                                        const void *preamble,
                                        size_t preamble_len);

/*
 * The same for a name: it is looked up, and its addresses are tried one after
 * the other. `host` NULL or "localhost" means this machine: 127.0.0.1, then
 * ::1, with no look-up. UV_EINVAL for a port beyond 65535, or 0.
 */
RELAY_API int relay_agent_serve_name(relay_agent *agent, const char *id,
                                     const char *host, unsigned port,
                                     const void *preamble, size_t preamble_len);

/* Serves the visitor with a connected stream socket of the host's own (one end
   of a socketpair, say). Takes the descriptor over on success only. */
RELAY_API int relay_agent_serve_fd(relay_agent *agent, const char *id, int fd);

/* Turns the visitor away: it is reset at once. `reason` goes to the relay's
   log. */
RELAY_API int relay_agent_reject(relay_agent *agent, const char *id,
                                 const char *reason);

/* Builds a PROXY protocol header, version 1 or 2, for a visitor's addresses as
   text, into buffer (at least 128 bytes). Its length, or UV_EINVAL for an
   unknown version; addresses that cannot be told become UNKNOWN / LOCAL. */
RELAY_API int relay_proxy_header(int version, const char *from, const char *to,
                                 void *buffer, size_t size);

/* Visitors being served now. */
RELAY_API unsigned relay_agent_visitors(const relay_agent *agent);

/* Gives the address up (BYE) and takes no new visitors; those being served go
   on for at most `ms`, then are reset. Then on_end(data, agent, 0, "drained")
   is called. A second call shortens the time. */
RELAY_API void relay_agent_drain(relay_agent *agent, uint64_t ms);

/* Says BYE, resets what is left, frees everything; `on_close` (may be NULL)
   runs when no handle of the agent is left on the loop. Visitors that were
   being served get their on_visitor_end before that; nothing else is called
   any more. */
RELAY_API void relay_agent_close(relay_agent *agent,
                                 relay_agent_close_fn on_close, void *data);

#ifdef __cplusplus
}
#endif
#endif
