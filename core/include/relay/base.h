/* SPDX-License-Identifier: MIT */
/*
 * What both halves of the library share: version, errors, log records.
 * Included by relay/relay.h and relay/agent.h; never needed by itself.
 *
 * Promises of the whole library: no global state, no thread that the host did
 * not ask for (with `workers`; names are looked up on libuv's pool), no signal
 * handler, no write to a standard stream, no exit or abort.
 * Everything happens on the host's own uv_loop_t, inside uv_run, but for bytes
 * that workers move. Every object belongs to the thread that runs its loop.
 *
 * SIGPIPE: splice(2) into a dead socket raises it and cannot be told not to.
 * The host ignores or blocks SIGPIPE in the thread that runs the loop.
 */
#ifndef RELAY_BASE_H
#define RELAY_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define RELAY_API __attribute__((visibility("default")))
#else
#define RELAY_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define RELAY_VERSION "0.1.0"

struct uv_loop_s;
struct sockaddr;

/*
 * Errors are ints: 0, a negative libuv code, or one of these, whose range is
 * disjoint from libuv's. A call that fails has changed nothing and calls
 * nothing back.
 */
#define RELAY_ERROR_MAP(X)                                                     \
  X(-20001, EPROTO, "protocol", "not a line of the relay protocol")            \
  X(-20002, EVERSION, "version", "protocol version not spoken here")           \
  X(-20003, EDENIED, "denied", "denied by policy")                             \
  X(-20004, EPORT_REFUSED, "port-refused", "port not allowed")                 \
  X(-20005, EPORT_TAKEN, "port-taken", "port is taken")                        \
  X(-20006, ENO_PORT, "no-port", "every port of the range is taken")           \
  X(-20007, EBUSY, "busy", "the relay is at its limit")                        \
  X(-20008, EQUOTA, "quota", "limit for one owner reached")                    \
  X(-20009, EHANDSHAKE, "handshake", "handshake not completed in time")        \
  X(-20010, EGONE, "gone", "no such visitor, or it has left")                  \
  X(-20011, ESESSION, "session", "no such session")                            \
  X(-20012, EREPLACED, "replaced", "replaced by a newer connection")           \
  X(-20013, EDRAINING, "draining", "the relay is shutting down")               \
  X(-20014, EHEARTBEAT, "heartbeat", "no heartbeat from the other side")       \
  X(-20015, ELIMIT, "limit", "over the limit set for this connection")         \
  X(-20016, EHOOK, "hook", "a policy hook failed or took too long")            \
  X(-20017, ESTATE, "state", "the state directory cannot be used")             \
  X(-20018, ETLS, "tls", "no proper TLS")                                      \
  X(-20019, EKEY, "key", "the key was not accepted")                           \
  X(-20020, ECERT, "certificate", "the certificate was not accepted")          \
  X(-20021, EWORKERS, "workers", "the worker threads cannot be started")

enum {
#define RELAY_ERROR_ENUM(number, name, code, text) RELAY_##name = number,
  RELAY_ERROR_MAP(RELAY_ERROR_ENUM)
#undef RELAY_ERROR_ENUM
      RELAY_ERROR_MAX_ = 0
};

/* One sentence for any code this library returns, its own or libuv's. The text
   is static. */
RELAY_API const char *relay_strerror(int error);

/* The word that stands for an error on the wire and in logs ("port-taken",
   "ECONNRESET"). Static. */
RELAY_API const char *relay_error_name(int error);

/*
 * Looks whether these PEM files can be used for TLS, as relay_new and
 * relay_agent_new read them: a certificate, with those that lead from it to its
 * authority behind it, its key, and the certificates of authorities. Any of
 * them may be NULL, the first two together. A certificate may be made for
 * servers alone, such as a relay, or for clients: `is_relay` says whose it is,
 * 0 an agent's. Reads files, and so blocks. 0; or
 * RELAY_ECERT or UV_ENOMEM, with one line in `error` that names the file and
 * the reason.
 */
RELAY_API int relay_tls_check(int is_relay, const char *cert, const char *key,
                              const char *ca, char *error, size_t size);

/* The library's version, which may be newer than the header's. Static. */
RELAY_API const char *relay_version(void);

/* How bytes move between two plain sockets. */
typedef enum relay_mode {
  RELAY_MODE_AUTO,   /* small reads as COPY, large ones as SPLICE (default) */
  RELAY_MODE_SPLICE, /* through kernel pipes where possible */
  RELAY_MODE_COPY    /* through user space always */
} relay_mode;

typedef enum relay_log_level {
  RELAY_LOG_DEBUG,
  RELAY_LOG_INFO,
  RELAY_LOG_WARN,
  RELAY_LOG_ERROR
} relay_log_level;

/* One key and its value: text when it is not NULL, else the number. */
typedef struct relay_log_field {
  const char *key;
  const char *text;
  int64_t number;
} relay_log_field;

/*
 * One thing that happened. `event` is a short stable phrase ("visitor closed");
 * all that varies is in the fields. Borrowed for the length of the callback.
 * Values may hold any byte a peer sent: print them through relay_log_format.
 */
typedef struct relay_log_record {
  size_t size;
  relay_log_level level;
  const char *event;
  const relay_log_field *fields;
  size_t field_count;
} relay_log_record;

/* Called on the loop's thread. Must not call back into the object that logs. */
typedef void (*relay_log_fn)(void *data, const relay_log_record *record);

typedef enum relay_log_format_kind {
  RELAY_LOG_TEXT,
  RELAY_LOG_JSON
} relay_log_format_kind;

/*
 * Writes the record as one line, with the current UTC time, without a line
 * feed, always terminated: whatever the values hold, it is one line of
 * printable ASCII or valid UTF-8 with control bytes escaped. Returns its
 * length; what does not fit `size` bytes is cut between fields (JSON stays
 * valid), and an ellipsis field says so.
 */
RELAY_API size_t relay_log_format(const relay_log_record *record,
                                  relay_log_format_kind kind, char *buffer,
                                  size_t size);

#ifdef __cplusplus
}
#endif
#endif
