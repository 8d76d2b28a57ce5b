/* SPDX-License-Identifier: MIT */
/*
 * TLS 1.3 as a layer of a stream: a key that both ends hold beforehand, and a
 * fresh exchange (X25519) on top of it, so that what was recorded stays
 * unreadable even if the key is lost later. Each end proves the key to the
 * other; or the server, and the client if the server asks for it, shows a
 * certificate instead. One server can have both. The laws:
 *
 * 1. close_notify is the FIN. A FIN without it is a cut, and the stream is
 *    marked reset.
 * 2. A record is made once. What the socket does not take of it is kept here,
 *    counts as unsent, and goes before anything else.
 * 3. poll does not see bytes that are inside OpenSSL. A stream that is watched
 *    for reading and has some reports them, from the loop.
 * 4. From inside OpenSSL nothing is called that has an owner. So a server's
 *    handshake stops once the client has said who it is, until somebody
 *    settles the key; meanwhile it costs nothing.
 * 5. Whatever fails ends one stream. OpenSSL's queue of errors is left empty.
 */
#ifndef RELAY_TLS_H
#define RELAY_TLS_H

#include <openssl/ssl.h>

#include "net/plane.h"
#include "net/secret.h"

/* A longer identity is none of ours, and taken for an empty one. */
#define TLS_IDENTITY_MAX 128
/* What a common name may have at most (RFC 5280), in bytes. */
#define TLS_NAME_MAX 64
#define TLS_FINGERPRINT_SIZE (2 * SECRET_SIZE + 1)

/* Bytes of a full record, and what they become on the wire: header, content
   type and tag come on top. So many are read, or written, at once. */
#define TLS_RECORD_BYTES (16 * 1024)
#define TLS_RECORD_WIRE_BYTES (5 + TLS_RECORD_BYTES + 1 + 16)
#define TLS_BATCH_RECORDS 4
#define TLS_BATCH_BYTES (TLS_BATCH_RECORDS * TLS_RECORD_WIRE_BYTES)

struct stream;

/* Paths of PEM files. */
struct tls_files {
  const char *cert; /* what it shows, with what leads to its authority; or NULL,
                       and `key` with it */
  const char *key;
  const char *ca; /* the authorities it believes. NULL: for a client those that
                     the system believes; a server asks for no certificate */
};

/* What the streams of one owner have in common. */
struct tls_context {
  SSL_CTX *ctx;
  SSL_CTX *certified; /* with certificates; NULL: there are none */
  BIO_METHOD *method;
  bool server;
  bool mutual; /* a server's: its clients show a certificate, too */
};

/*
 *   SHAKING ◄─settled──► NAMED        (a server's only)
 *      ├──► OPEN ──broken──► FAILED
 *      └──► FAILED
 */
enum tls_phase { TLS_SHAKING, TLS_NAMED, TLS_OPEN, TLS_FAILED };

struct tls {
  struct stream *stream;
  SSL *ssl;
  enum tls_phase phase;
  bool settled;     /* `key` is the one to be proven */
  bool certified;   /* by certificates, and no key */
  bool disbelieved; /* by the peer, which has seen our certificate or wants one
                     */
  bool drained;     /* nothing is left inside that poll would not tell */
  bool closed;      /* our close_notify is made */
  bool bulk;        /* records come that are full: several are read at once.
                       Such without bytes cost as much, each */
  int asked;        /* events the owner waits for */
  struct deadline kick;
  char *out; /* records that the socket has not taken; NULL: none */
  size_t out_start;
  size_t out_length;
  char *batch; /* the plane's, while records are gathered there; or NULL */
  size_t batch_length;
  uint8_t key[SECRET_SIZE];
  char identity[TLS_IDENTITY_MAX + 1];
};

/* 0 or UV_ENOMEM. */
int relay__tls_context_new(struct tls_context **out, bool server);
/* No stream made with it is left. NULL is allowed. */
void relay__tls_context_free(struct tls_context *context);
/* Reads certificates; those it had before stay with the streams that have them.
   0; or RELAY_ECERT or UV_ENOMEM, with one line in `error` that names the file
   and the reason, and then nothing has changed. */
int relay__tls_context_certify(struct tls_context *context,
                               const struct tls_files *files, char *error,
                               size_t size);

/* ---- the handshake ---------------------------------------------------- */

/* Lays TLS over a connected stream of which nothing has been read. The server
   learns the identity; the client has it proven with `key`. 0 or a negative
   code, and then the stream is as it was. */
int relay__tls_accept(struct stream *stream, struct tls_context *context);
int relay__tls_connect(struct stream *stream, struct tls_context *context,
                       const char *identity, const uint8_t key[SECRET_SIZE]);
/* The same for a client that believes the server by its certificate, which has
   to be for this name, or address as text. The context has certificates. */
int relay__tls_connect_named(struct stream *stream, struct tls_context *context,
                             const char *name);

#define TLS_DONE 1
#define TLS_IDENTIFIED 2

/*
 * Goes on with it, whenever the stream reports an event: it is watched for
 * reading. TLS_DONE: both ends have proven the key, or whoever was to show a
 * certificate has. 0: not yet. TLS_IDENTIFIED: relay__tls_identity tells who it
 * is to be; settle the key and go on. Else why it failed: RELAY_EKEY when the
 * peer did not take the key; RELAY_ECERT when one end does not believe the
 * other's certificate; RELAY_ETLS when the peer spoke otherwise; a libuv code
 * when the connection broke. What TLS has to say of it is not sent before
 * relay__tls_drop, so that it can wait.
 *
 * A client is done before it hears that its certificate is not believed: its
 * stream then ends with RELAY_ECERT.
 */
int relay__tls_handshake(struct stream *stream);
const char *relay__tls_identity(const struct stream *stream);
/* NULL: a random key, which nobody can prove. The answer and the time it takes
   are those of a wrong key then. */
void relay__tls_settle(struct stream *stream, const uint8_t *key);
/* In place of a key: show the certificate, which the context has, and where it
   is mutual have the client show one. 0 or UV_ENOMEM. */
int relay__tls_certify(struct stream *stream, struct tls_context *context);
/* After RELAY_ECERT: what is wrong with the peer's certificate, an X509_V_
   code; X509_V_OK: nothing, it had none, or it is the peer who does not
   believe. */
int relay__tls_verdict(const struct stream *stream);
/* Once it is done: who the peer is by its certificate, which was verified: its
   common name, and the SHA-256 of all of it in hexadecimal digits. 0;
   RELAY_ECERT: it has no one name, or one that cannot be shown; UV_ENOMEM. */
int relay__tls_peer(const struct stream *stream, char name[TLS_NAME_MAX + 1],
                    char fingerprint[TLS_FINGERPRINT_SIZE]);

/* A key that only the two ends of this stream have. 0, UV_EINVAL before the
   handshake is done, UV_ENOMEM. */
int relay__tls_export(struct stream *stream, const char *label,
                      uint8_t key[SECRET_SIZE]);

/* Takes TLS off again where the handshake came to nothing: says so, and leaves
   the rest to be read and dropped. Nothing happens to one that is open. */
void relay__tls_drop(struct stream *stream);

/* ---- for stream.c ----------------------------------------------------- */

/* As the calls of stream.h of the same names. */
ssize_t relay__tls_recv(struct tls *tls, void *bytes, size_t size);
ssize_t relay__tls_peek(struct tls *tls, void *bytes, size_t size);
ssize_t relay__tls_send(struct tls *tls, const void *bytes, size_t size);
/* close_notify. 0: it is with the socket; UV_EAGAIN: again when writable. */
int relay__tls_shutdown(struct tls *tls);
/* The events of the socket to watch for, where the owner waits for these; and
   those the owner is to hear of, when these have come. */
int relay__tls_watch(struct tls *tls, int events);
int relay__tls_event(struct tls *tls, int events);
/* As the calls of stream.h: what was `tls` is that of the stream `moved`. Where
   there is no memory, UV_ENOMEM, nothing has changed. */
int relay__tls_move(struct tls *tls, struct stream *moved);
void relay__tls_attach(struct tls *tls);
void relay__tls_close(struct tls *tls);

/* ---- between the files of TLS ----------------------------------------- */

BIO_METHOD *relay__tls_method_new(void);
/* Whether the error that was just met is the peer's word that it does not
   believe our certificate, or wants one. */
bool relay__tls_is_disbelief(void);
/* Sends what is kept. 0 when nothing is any more; UV_EAGAIN; or why not. */
int relay__tls_flush(struct tls *tls);

#endif
