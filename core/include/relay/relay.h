/* SPDX-License-Identifier: MIT */
/*
 * The relay half: hands out public addresses to agents and joins each visitor
 * of an address to its agent.
 *
 * Words. An agent is a requesting client: one control connection and what
 * hangs on it. A lease is a public address held for it; it outlives a dropped
 * control connection. A visitor (a conn, here) is a program that connected to
 * a leased address. A pair is a visitor joined to a data connection. `in`
 * means from the visitor, `out` to the visitor.
 *
 * Ids are for keeping, pointers for borrowing: what a callback is handed is
 * valid until it returns; an id stays safe for ever, and calling with the id
 * of something that has ended returns UV_ENOENT. Agents and conns share one
 * number space.
 *
 * Every call is made on the thread of the relay's loop.
 */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#include <relay/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct relay relay_t;

/* ---- what policy sees ------------------------------------------------- */

typedef struct relay_agent_info {
  size_t size;
  uint64_t id;
  const char *name;  /* what the agent calls its lease; "" if nothing */
  const char *addr;  /* where it connects from: "192.0.2.1", no port */
  unsigned port;     /* the leased port; 0 while there is none */
  unsigned conns;    /* visitors admitted and not yet closed */
  uint64_t since_ms; /* age of the control connection */
  const char *owner; /* whose key it has proven, as `auth` calls it, or the id
                        of its token, or the name in its certificate; "" without
                        any */
} relay_agent_info;

typedef struct relay_conn_info {
  size_t size;
  uint64_t id;
  uint64_t agent; /* the agent that serves it; 0 while there is none */
  const char *addr;
  unsigned port;
  unsigned listen_port;
  uint64_t bytes_in;
  uint64_t bytes_out;
  uint64_t duration_ms;
  int reason;      /* in close: 0 after an orderly end, else why */
  const char *why; /* the words relay_close_conn was given; NULL: none */
} relay_conn_info;

/* What an agent presents. */
typedef enum relay_credential_kind {
  RELAY_CREDENTIAL_NONE,
  RELAY_CREDENTIAL_TOKEN,      /* nothing is proven: anybody can say any id */
  RELAY_CREDENTIAL_CERTIFICATE /* proven: it was verified */
} relay_credential_kind;

typedef struct relay_credentials {
  size_t size;
  const char *id; /* of the token, or else what the certificate calls it; NULL:
                     neither */
  int known; /* without the policy it would be let in: the tokens file has a
                good token with this id; or there is no such file, and the
                certificate is enough */
  relay_credential_kind kind; /* of `id` */
  const char
      *certificate; /* the common name in a certificate that was verified,
                       whatever else there is; NULL: there is none */
  const char *fingerprint; /* SHA-256 of that certificate, in 64 hexadecimal
                              digits; NULL */
} relay_credentials;

/* Bytes of the key of a token. */
#define RELAY_KEY_SIZE 32

/* What an agent asks for. */
typedef struct relay_want {
  size_t size;
  unsigned port;    /* 0: any */
  const char *host; /* the name it dialed; "" if unknown */
  unsigned attempt; /* 1, then more while ports turned out to be taken */
} relay_want;

typedef enum relay_answer {
  RELAY_ALLOW,  /* go on; in allocate and visitor the core chooses */
  RELAY_DENY,   /* with `reason` */
  RELAY_PICK,   /* with `agent` (visitor, peek) or `port`/`host` (allocate) */
  RELAY_NEED,   /* peek only: call again when `need` bytes are there */
  RELAY_DEFER,  /* settled later, by relay_settle with the call's number */
  RELAY_ABSTAIN /* auth only: as without the hook; the tokens file decides,
                   also whether a key that relay_verify gave is the right one */
} relay_answer;

/* One verdict for every hook that decides. Starts out all zero: ALLOW. Texts
   are copied when the hook returns or relay_settle is called. */
typedef struct relay_verdict {
  size_t size;
  relay_answer answer;
  const char *reason;
  const char *name; /* auth: the owner's name, for logs and leases */
  uint64_t agent;
  unsigned port;
  const char *host; /* allocate: what the agent is told; NULL: the default */
  int share;        /* allocate: others may hold this port too */
  size_t need;
  const void *key;   /* auth, of an id: the key it has to prove; copied. NULL:
                        that of the tokens file. After relay_verify that one
                        counts, and this is ignored */
  unsigned key_size; /* RELAY_KEY_SIZE */
  int plain;         /* auth: it may ask for data=plain */
} relay_verdict;

/*
 * The policy: a table of functions, each of which may be NULL at no cost.
 * Append-only; `size` says how much of it the host knows. `data` is handed to
 * each. `call` numbers a question that may be deferred: answer DEFER, keep the
 * number, and call relay_settle with it, even before the hook has returned. A
 * deferred question whose subject died is told by `cancel`; one that takes
 * longer than its deadline is denied, and also told. A deciding hook returns 0
 * or a negative code; an error denies.
 */
typedef struct relay_policy {
  size_t size;
  void *data;

  /* An agent identifies itself. NULL: the tokens file decides, without one
     anybody is let in. One with an id is let in when it proves the key as well,
     and not before; its name is not known yet. */
  int (*auth)(void *data, uint64_t call, const relay_agent_info *agent,
              const relay_credentials *credentials, relay_verdict *verdict);
  /* An agent asks for an address. Called again, up to 16 times, while the
     port it picked turns out to be taken. NULL: the next free port. */
  int (*allocate)(void *data, uint64_t call, const relay_agent_info *agent,
                  const relay_want *want, relay_verdict *verdict);
  /* A visitor was accepted; nothing was read. `agents` are those that serve
     the address and are there; a host that knows fewer fields than the library
     steps from one to the next by `size`. NULL: let in. */
  int (*visitor)(void *data, uint64_t call, const relay_conn_info *conn,
                 const relay_agent_info *agents, size_t agent_count,
                 relay_verdict *verdict);
  /* The first bytes of a conn, where relay_peek_conn asked for them. */
  int (*peek)(void *data, uint64_t call, const relay_conn_info *conn,
              const void *bytes, size_t count, int eof, relay_verdict *verdict);
  /* A visitor was joined to its agent. */
  void (*open)(void *data, const relay_conn_info *conn);
  /* A visitor that `visitor` let in has ended. Exactly once for each. */
  void (*close)(void *data, const relay_conn_info *conn);
  /* An agent that `auth` let in is gone, whether or not it ever proved its key.
   */
  void (*agent_gone)(void *data, const relay_agent_info *agent, int reason);
  /* Every second, on the loop's clock. The next interval in ms; 0 keeps it. */
  uint64_t (*tick)(void *data, uint64_t now_ms);
  /* A log record, before the host's log function. 0 passes it on, 1 drops it.
   */
  int (*log)(void *data, const relay_log_record *record);
  /* The question `call` needs no answer any more. */
  void (*cancel)(void *data, uint64_t call);
  /* The agent that `call` (of auth) asks about has proven the key that
     relay_verify was given. If it cannot, there is a cancel. */
  void (*proven)(void *data, uint64_t call);
} relay_policy;

/* ---- the relay -------------------------------------------------------- */

typedef enum relay_penalties {
  RELAY_PENALTIES_AUTO, /* where there is a tokens file, or tls_client_ca */
  RELAY_PENALTIES_ON,
  RELAY_PENALTIES_OFF
} relay_penalties;

typedef struct relay_options {
  size_t size;

  /* Addresses. Texts are copied. */
  const char *listen_host; /* NULL: every address, IPv6 and IPv4 */
  unsigned port;           /* for agents; 0: any free one */
  const char *advertise;   /* host told to agents; NULL: the one they dialed */
  unsigned port_lo;        /* range of leased ports; 0: after `port` */
  unsigned port_hi;
  const char *dial; /* HOST:PORT where data connections go; NULL: the same */

  /* How bytes move. */
  relay_mode mode;
  unsigned rcvbuf_bytes; /* SO_RCVBUF of each connection; 0: the kernel's */

  /* Caps. */
  unsigned max_agents;
  unsigned max_leases_per_owner; /* per token, or source address without */
  unsigned max_visitors;         /* per lease, all of them */
  unsigned max_parked;           /* per lease, while its agent is away */
  unsigned max_pool;             /* waiting data connections per agent */
  unsigned max_unproven; /* connections that have not said who they are; and
                            as many that have proven a key, and said nothing */
  unsigned max_fds;      /* descriptors in all; 0: what RLIMIT_NOFILE leaves */

  /* Times, in milliseconds; 0 means never, where that makes sense. */
  uint64_t handshake_ms;
  uint64_t hook_agent_ms;   /* auth, allocate: longest wait */
  uint64_t hook_visitor_ms; /* visitor, peek: longest wait */
  uint64_t pairing_ms;
  uint64_t heartbeat_ms;
  uint64_t dead_ms;
  uint64_t grace_ms;
  uint64_t park_ms;
  uint64_t fin_timeout_ms;
  uint64_t idle_ms;
  uint64_t drain_ms;

  /* TCP keepalive on each connection, in whole seconds: silence before the
     first probe, time between two, and how many unanswered ones end it. */
  unsigned keepalive_idle_s;
  unsigned keepalive_interval_s;
  unsigned keepalive_count;

  /* Default limits of a visitor, in bytes per second; 0: none. */
  uint64_t rate_in;
  uint64_t rate_out;

  const relay_policy *policy; /* copied; NULL: none */
  relay_log_fn log;           /* NULL: no log */
  void *log_data;
  relay_log_level log_level; /* records below it are not made */

  /* Networks of balancers ("192.0.2.0/24,2001:db8::1") that put a PROXY header
     (version 1 or 2) before each connection, agents' and visitors'. Those that
     do not are refused. Copied. NULL: none. */
  const char *proxy_from;

  /* A directory that keeps leases across a restart of the process; made if it
     is not there, and locked: RELAY_ESTATE when it cannot be used, with a log
     record that says why. Leases found in it are listened on before relay_new
     returns; a file that is not as it was written is logged and left. What
     cannot be written is logged and tried again each second. Copied. NULL:
     none. */
  const char *state;

  const char *tokens; /* path of the tokens file; NULL: open to anyone. With
                         one, whoever has no good token is refused, unless
                         the policy's `auth` decides */

  /* Against those who have proven no key. Penalties: the more often lines that
     are none, or wrong keys, come from one source (an IPv4 address, or an IPv6
     /64), the longer each waits for its answer; then there is none. */
  relay_penalties penalties;
  uint64_t penalty_ms;              /* the longest wait */
  uint64_t penalty_half_life_ms;    /* half is forgotten; 0: nothing is */
  unsigned max_unproven_per_source; /* 0: where penalties are in force a
                                       quarter of max_unproven, else all */

  int plain; /* data connections may be bound but not encrypted, where the
                token and the agent want that, too */

  /* Certificates: paths of PEM files, copied. With tls_cert and tls_key, agents
     may come by TLS with the relay's certificate as well as with the key of a
     token; then the token, where one is needed, is said inside of that. None
     comes without TLS. RELAY_ECERT when the files cannot be used, with a log
     record that says why. */
  const char *tls_cert; /* with those that lead to its authority behind it */
  const char *tls_key;
  const char *tls_client_ca; /* authorities: every agent has to show a
                                certificate of theirs; the key of a token is not
                                enough. NULL: none is asked for */

  /* Threads that only move the bytes of visitors that were joined, each on a
     loop of its own; at most 64. 0, the default: none, all is done on the
     host's loop. With some, everything else stays as it is: each call, hook and
     log record is made on the thread of that loop. All signals are blocked in
     them; their stack is 512 KiB. relay_new starts them:
     RELAY_EWORKERS when it cannot, with a log record that says why. They have
     ended when on_close runs. */
  unsigned workers;
} relay_options;

/* Fills every option with its default. `size` is sizeof(relay_options) as the
   caller knows it. */
RELAY_API void relay_options_init(relay_options *options, size_t size);

/* The name of an option whose value cannot be, for which relay_new would say
   UV_EINVAL ("dead_ms"); "size" for a struct newer than the library; NULL:
   none. Static. */
RELAY_API const char *relay_options_fault(const relay_options *options);

/*
 * Makes a relay on `loop` and listens. Everything in options is copied. 0, or
 * a negative code (UV_EADDRINUSE, UV_EACCES, UV_EINVAL, UV_ENOMEM …), and then
 * nothing is left behind but closing handles, which the next turns of the loop
 * finish.
 */
RELAY_API int relay_new(relay_t **out, struct uv_loop_s *loop,
                        const relay_options *options);

/* The port agents connect to. */
RELAY_API unsigned relay_port(const relay_t *r);

/* The host it listens on, as text ("::", "127.0.0.1"). Owned by the relay. */
RELAY_API const char *relay_host(const relay_t *r);

/*
 * Reads the tokens file again. Agents whose token is not in it any more, is
 * revoked or has another key are ended, with their leases and pairs; other
 * settings count from then on. 0; or a negative code with one line in `error`
 * (may be NULL if `size` is 0), and then the file read before stays in force.
 */
RELAY_API int relay_reload_tokens(relay_t *r, char *error, size_t size);

/*
 * Reads the certificates again, for connections that come from then on. 0; or
 * UV_EINVAL (there are none), RELAY_ECERT or UV_ENOMEM with one line in `error`
 * (may be NULL if `size` is 0), and then those read before stay in force.
 */
RELAY_API int relay_reload_certificates(relay_t *r, char *error, size_t size);

typedef void (*relay_close_fn)(void *data);

/*
 * No new agents and no new visitors from now on; live pairs finish. After `ms`
 * what is left is reset. Then `on_drained` runs; the relay is still to be
 * closed. A second call shortens the time.
 */
RELAY_API void relay_drain(relay_t *r, uint64_t ms, relay_close_fn on_drained,
                           void *data);

/* Resets what is left and frees everything. `on_close` (may be NULL) runs when
   no handle of the relay is left on the loop. Idempotent. */
RELAY_API void relay_close(relay_t *r, relay_close_fn on_close, void *data);

/* ---- calls by id ------------------------------------------------------ */

typedef struct relay_limits {
  size_t size;
  int64_t rate_in; /* bytes per second; 0: none; -1: leave as it is */
  int64_t rate_out;
  int64_t idle_ms;
} relay_limits;

typedef struct relay_stats {
  size_t size;
  uint64_t agents;   /* connected now */
  uint64_t leases;   /* held now, grace included */
  uint64_t visitors; /* admitted and not closed */
  uint64_t pairs;
  uint64_t parked;
  uint64_t waiting; /* pooled data connections */
  uint64_t unproven;
  uint64_t fds;   /* descriptors in use by this relay */
  uint64_t pipes; /* kernel pipes, in use and kept */
  uint64_t agents_total;
  uint64_t visitors_total;
  uint64_t refused_total; /* visitors and agents turned away, and agents'
                             data connections */
  uint64_t bytes_in;
  uint64_t bytes_out;
} relay_stats;

/* Answers a deferred question. UV_ENOENT when it is not (or no longer) open;
   then nothing changes. */
RELAY_API int relay_settle(relay_t *r, uint64_t call,
                           const relay_verdict *verdict);

/*
 * While auth decides about an agent with an id: has it prove this key first.
 * The question stays open; `proven` tells when it has, unless it was answered
 * before, as it may be, even by the hook that calls this. Meanwhile the agent's
 * time runs and not the hook's. UV_ENOENT when there is no such question;
 * UV_EALREADY when a key was given before; UV_EINVAL for a wrong size.
 */
RELAY_API int relay_verify(relay_t *r, uint64_t call, const void *key,
                           size_t key_size);

/* Resets a visitor and its agent's leg. */
RELAY_API int relay_close_conn(relay_t *r, uint64_t conn, const char *reason);
/* Ends an agent's session and its lease, with everything on it. */
RELAY_API int relay_close_agent(relay_t *r, uint64_t agent, const char *reason);

/* Sets a conn's limits. */
RELAY_API int relay_limit_conn(relay_t *r, uint64_t conn,
                               const relay_limits *limits);
/* Sets rates for the sum of an agent's conns; idle_ms is of no effect. They end
   with its lease. */
RELAY_API int relay_limit_agent(relay_t *r, uint64_t agent,
                                const relay_limits *limits);

/* Sets (or with value NULL removes) a tag, shown in the record of the conn's
   end. Copied. UV_EINVAL when key and value are over 254 characters together,
   UV_ENOSPC beyond eight tags. */
RELAY_API int relay_tag_conn(relay_t *r, uint64_t conn, const char *key,
                             const char *value);
/* While `visitor` decides: asks for the first bytes, for at most `ms`. Then
   `peek` is called, and decides with them. UV_EALREADY when it is too late. */
RELAY_API int relay_peek_conn(relay_t *r, uint64_t conn, uint64_t ms);
/* Opens a public listener that belongs to no agent: `allocate` may give its
   port to any number of them, which nobody gets by asking for it. host NULL: as
   the relay listens. Declaring it again changes nothing. UV_EADDRINUSE when an
   agent holds the port. */
RELAY_API int relay_listen(relay_t *r, const char *host, unsigned port);
/* Takes that back. The listener closes when no agent serves it any more. */
RELAY_API int relay_unlisten(relay_t *r, unsigned port);

/* What there is to see of a conn or an agent. The caller sets `size`, and
   nothing is written beyond it; the call sets it to how much is known. Texts
   are borrowed until the relay is called, or runs, again. 0, UV_ENOENT, or
   UV_EINVAL for a size that is none. */
RELAY_API int relay_get_conn(relay_t *r, uint64_t conn, relay_conn_info *info);
RELAY_API int relay_get_agent(relay_t *r, uint64_t agent,
                              relay_agent_info *info);

/* Calls `visit` for each; a nonzero answer stops and is returned. The visit
   may close what it is shown, and nothing else. */
RELAY_API int relay_each_conn(relay_t *r,
                              int (*visit)(void *data,
                                           const relay_conn_info *conn),
                              void *data);
RELAY_API int relay_each_agent(relay_t *r,
                               int (*visit)(void *data,
                                            const relay_agent_info *agent),
                               void *data);

/* `size` as in relay_get_conn. */
RELAY_API void relay_get_stats(const relay_t *r, relay_stats *stats);

/* ---- the tokens file -------------------------------------------------- */

/*
 * Who may ask for an address. The file is text, one token a line; it is
 * described in docs/operations.md. These calls need no relay, and block: they
 * read and write files, and wait for up to ten seconds while another process
 * changes the same one. On failure they return a negative libuv code, with one
 * line in `error` that names the file and the reason, and have changed nothing.
 */
typedef struct relay_token {
  size_t size;
  const char *id;    /* 1 to 64 of A-Z, a-z, 0-9, '_' and '-' */
  const char *ports; /* the only ones it may have, "8081,9000-9100"; NULL: those
                        of the relay */
  unsigned leases;   /* at a time; 0: as any owner */
  unsigned visitors; /* of each lease at a time; 0: as any lease */
  int64_t expires;   /* seconds since 1970, in UTC; 0: never */
  int plain;         /* it may ask for data=plain */
  int revoked;
  const char *note; /* NULL: none */
} relay_token;

/* Room for any token as text, `id.secret`. */
#define RELAY_TOKEN_SIZE 109

/* Adds a token and writes it to `text`: nobody will ever see it again, since
   the file has only a key that is derived from it. A file that is not there is
   made, for its owner alone. UV_EEXIST when the id is taken, UV_EINVAL when
   `token` itself is at fault; then the error names no file. */
RELAY_API int relay_token_new(const char *path, const relay_token *token,
                              char *text, size_t text_size, char *error,
                              size_t size);
/* Marks a token as revoked. UV_ENOENT when there is none of this id. */
RELAY_API int relay_token_revoke(const char *path, const char *id, char *error,
                                 size_t size);
/* Calls `visit` (NULL: nobody; the file is only checked) for each token, in the
   order of the file; a nonzero answer stops and is returned. */
RELAY_API int relay_token_each(const char *path,
                               int (*visit)(void *data,
                                            const relay_token *token),
                               void *data, char *error, size_t size);
/* Reads a time as it stands in the file, "2026-12-31T00:00:00Z", or writes
   it. UV_EINVAL for what is none; `text` has room for 21 characters. */
RELAY_API int relay_token_read_time(const char *text, int64_t *seconds);
RELAY_API void relay_token_write_time(int64_t seconds, char *text);

#ifdef __cplusplus
}
#endif
#endif
