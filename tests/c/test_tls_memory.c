/* SPDX-License-Identifier: MIT */
/*
 * OpenSSL without memory: each of its allocations, from a context to the last
 * close_notify, fails once. Whatever comes of it ends one stream, with an error
 * that says so, and nothing is left; the next stream is as good as any.
 */
#include "tls_certs.h"
#include "tls_peer.h"

#include <openssl/crypto.h>

static struct {
  bool inside;
  bool fired;
  unsigned calls;
  unsigned nth; /* 0: none */
  long blocks;
} memory;

static bool is_refused(void) {
  if (!memory.inside || ++memory.calls != memory.nth)
    return false;
  memory.fired = true;
  return true;
}

static void *take(size_t size, const char *file, int line) {
  void *block = is_refused() ? NULL : malloc(size);

  (void)file, (void)line;
  memory.blocks += block != NULL;
  return block;
}

static void *retake(void *block, size_t size, const char *file, int line) {
  void *grown = is_refused() ? NULL : realloc(block, size);

  (void)file, (void)line;
  memory.blocks += block == NULL && grown != NULL;
  return grown;
}

static void give(void *block, const char *file, int line) {
  (void)file, (void)line;
  memory.blocks -= block != NULL;
  free(block);
}

static void arm(unsigned nth) {
  memory.nth = nth;
  memory.calls = 0;
  memory.fired = false;
  memory.inside = true;
}

/* ---- contexts --------------------------------------------------------- */

/* One failure each time, until there is no such allocation; how many. */
static unsigned make_contexts(bool server) {
  unsigned nth = 0;

  do {
    struct tls_context *context = NULL;
    int err;

    arm(++nth);
    err = relay__tls_context_new(&context, server);
    memory.inside = false;
    if (err == 0)
      relay__tls_context_free(context);
    else
      CHECK(err == UV_ENOMEM && context == NULL && memory.fired);
    if (!CHECK_INT(0, ERR_peek_error()))
      fprintf(stderr, "allocation %u\n", nth);
  } while (memory.fired && check_ok_);
  return nth - 1;
}

TEST(contexts_are_made_or_not) {
  for (int server = 0; server < 2; server++) {
    struct tls_context *context = NULL;
    long before;

    /* What OpenSSL does once in a process and fails at, it never does again. */
    CHECK_INT(0, relay__tls_context_new(&context, server));
    relay__tls_context_free(context);

    make_contexts(server); /* OpenSSL keeps things for the next time */
    before = memory.blocks;
    CHECK(make_contexts(server) > 10);
    CHECK_INT(before, memory.blocks);
  }
}

/* There are thousands of allocations: each of so many fails. */
static unsigned stride(unsigned most) {
  return getenv("RELAY_TEST_FULL") != NULL ? 1 : most;
}

/* The same for reading certificates: none changes what was there before. */
static unsigned read_certificates(struct tls_context *context,
                                  const struct tls_files *files) {
  unsigned nth = 0;

  do {
    const SSL_CTX *before = context->certified;
    char error[256];
    int err;

    nth += stride(19);
    arm(nth);
    err = relay__tls_context_certify(context, files, error, sizeof(error));
    memory.inside = false;
    if (err != 0)
      CHECK(memory.fired && context->certified == before && error[0] != '\0');
    if (!CHECK_INT(0, ERR_peek_error()))
      fprintf(stderr, "allocation %u\n", nth);
  } while (memory.fired && check_ok_);
  return nth - 1;
}

TEST(certificates_are_read_or_not) {
  struct tls_certs certs;
  struct tls_files files = {certs.cert, certs.key, certs.cert};
  struct tls_context *context;
  char error[256];
  long before;

  CHECK(tls_certs_open(&certs));
  CHECK_INT(0, relay__tls_context_new(&context, true));
  CHECK_INT(0,
            relay__tls_context_certify(context, &files, error, sizeof(error)));
  read_certificates(context, &files);
  before = memory.blocks;
  CHECK(read_certificates(context, &files) > 100);
  CHECK_INT(before, memory.blocks);
  relay__tls_context_free(context);
  tls_certs_close(&certs);
}

/* ---- streams ---------------------------------------------------------- */

#define BYTES 40000

struct side {
  struct rig *rig;
  bool certified; /* by certificates, each its own */
  struct stream *stream;
  int status; /* of the handshake */
  size_t sent, received;
  bool said, ended;
  int error; /* why it broke */
};

static void fail(struct side *side, int error) {
  side->error = error;
  relay__stream_close(side->stream);
  side->stream = NULL;
}

static int look_at_peer(struct side *side) {
  char name[TLS_NAME_MAX + 1], fingerprint[TLS_FINGERPRINT_SIZE];
  int err = relay__tls_peer(side->stream, name, fingerprint);

  if (err == 0) {
    CHECK_STR("test", name);
    CHECK_INT(TLS_FINGERPRINT_SIZE - 1, strlen(fingerprint));
  }
  return err;
}

static int connect_tls(struct side *side) {
  if (side->certified)
    return relay__tls_connect_named(side->stream, side->rig->client,
                                    "localhost");
  return relay__tls_connect(side->stream, side->rig->client, "t/test", rig_key);
}

static int shake(struct side *side) {
  side->status = relay__tls_handshake(side->stream);
  if (side->status == TLS_IDENTIFIED) {
    int err = 0;

    if (side->certified)
      err = relay__tls_certify(side->stream, side->rig->server);
    else
      relay__tls_settle(side->stream, rig_key);
    side->status = err != 0 ? err : relay__tls_handshake(side->stream);
  }
  if (side->status == TLS_DONE && side->certified && side->stream->tls->settled)
    return look_at_peer(side);
  return side->status < 0 ? side->status : 0;
}

/* Says so much, and close_notify; reads to the end of the other. */
static int talk(struct side *side) {
  static char bytes[BYTES];
  ssize_t count = 0;
  int err;

  while (side->sent < BYTES && count >= 0) {
    count = relay__stream_send(side->stream, bytes, BYTES - side->sent);
    side->sent += count > 0 ? (size_t)count : 0;
  }
  if (side->sent == BYTES && !side->said) {
    err = relay__stream_shutdown(side->stream);
    side->said = err == 0;
    count = err;
  }
  if (count < 0 && count != UV_EAGAIN)
    return (int)count;
  while ((count = relay__stream_recv(side->stream, bytes, BYTES)) > 0)
    side->received += (size_t)count;
  side->ended |= count == 0;
  return count < 0 && count != UV_EAGAIN ? (int)count : 0;
}

static void on_side(struct stream *stream, int events) {
  struct side *side = stream->owner;
  int err = 0;

  (void)events;
  if (side->status != TLS_DONE)
    err = shake(side);
  if (err == 0 && side->status == TLS_DONE && !side->ended)
    err = talk(side);
  if (err == 0)
    err = relay__stream_watch(stream, (side->ended ? 0 : UV_READABLE) |
                                          (side->said ? 0 : UV_WRITABLE));
  if (err != 0)
    fail(side, err);
}

static void start(struct side *side, bool server) {
  struct rig *rig = side->rig;
  int err =
      server ? relay__tls_accept(side->stream, rig->server) : connect_tls(side);

  relay__stream_own(side->stream, on_side, side);
  if (err == 0 && server)
    err = relay__stream_watch(side->stream, UV_READABLE);
  if (err != 0)
    fail(side, err);
  else if (!server)
    on_side(side->stream, 0);
}

static bool is_over(const struct side *side) {
  return side->stream == NULL || (side->ended && side->said);
}

static void run_streams(struct rig *rig, unsigned nth, bool certified) {
  struct side sides[2] = {{.rig = rig, .certified = certified},
                          {.rig = rig, .certified = certified}};
  struct peer middle = {0};

  rig_connect(rig, &middle, &sides[0].stream, 0);
  CHECK_INT(0, relay__stream_tune(&rig->plane, middle.fd));
  CHECK_INT(0, relay__stream_open(&sides[1].stream, &rig->plane, middle.fd));
  arm(nth);
  start(&sides[0], true);
  start(&sides[1], false);
  RIG_UNTIL(rig, is_over(&sides[0]) && is_over(&sides[1]));
  memory.inside = false;
  for (int i = 0; i < 2; i++) {
    if (sides[i].stream == NULL)
      CHECK(memory.fired && sides[i].error < 0);
    else
      CHECK_INT(BYTES, sides[i].received);
    relay__stream_close(sides[i].stream);
  }
  while (rig->plane.handles != 0)
    rig_turn(rig);
  CHECK_INT(0, ERR_peek_error());
  if (!check_ok_)
    fprintf(stderr, "allocation %u: errors %d, %d\n", nth, sides[0].error,
            sides[1].error);
}

static unsigned run_all_streams(struct rig *rig, bool certified) {
  unsigned nth = 0;

  do
    run_streams(rig, nth += certified ? stride(7) : 1, certified);
  while (memory.fired && check_ok_);
  return nth - 1;
}

static void fail_each(bool certified) {
  struct tls_certs certs;
  struct tls_files files = {certs.cert, certs.key, certs.cert};
  struct rig rig;
  char error[256];
  long before;

  rig_init(&rig, RELAY_MODE_SPLICE);
  rig.peers[0].closed = rig.peers[1].closed = true;
  CHECK_INT(0, relay__tls_context_new(&rig.client, false));
  CHECK_INT(0, relay__tls_context_new(&rig.server, true));
  if (certified && CHECK(tls_certs_open(&certs))) {
    CHECK_INT(0, relay__tls_context_certify(rig.client, &files, error,
                                            sizeof(error)));
    CHECK_INT(0, relay__tls_context_certify(rig.server, &files, error,
                                            sizeof(error)));
    tls_certs_close(&certs);
  }
  run_all_streams(&rig, certified);
  before = memory.blocks;
  CHECK(run_all_streams(&rig, certified) > 100);
  CHECK_INT(before, memory.blocks);
  rig_close(&rig);
}

TEST(each_failure_ends_one_stream) {
  fail_each(false);
}

TEST(each_failure_ends_one_certified_stream) {
  fail_each(true);
}

int main(void) {
  if (CRYPTO_set_mem_functions(take, retake, give) != 1)
    return 1;
  signal(SIGPIPE, SIG_IGN);
  RUN(contexts_are_made_or_not);
  RUN(certificates_are_read_or_not);
  RUN(each_failure_ends_one_stream);
  RUN(each_failure_ends_one_certified_stream);
  return check_report();
}
