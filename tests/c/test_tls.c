/* SPDX-License-Identifier: MIT */
/*
 * TLS over a stream, against a peer of the tests' own: who is let in and who is
 * not, how a stream ends, and that no byte is lost between OpenSSL, the socket
 * and poll.
 */
#include "tls_peer.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

static const uint8_t key[SECRET_SIZE] = "this is the key of all the tests";
static const uint8_t other[SECRET_SIZE] = "this is another key: not to them";

/* One stream of ours, and what is at its other end. */
struct scene {
  struct rig rig;
  struct stream *stream;
  struct tls_peer peer;
  const uint8_t *settled; /* what the server takes for the key */
  const char *expected;   /* the identity it is to see */
  int status;             /* of our handshake */
  int peer_status;
  unsigned events;
  int last_events;
};

static void scene_open(struct scene *s, bool server) {
  memset(s, 0, sizeof(*s));
  rig_init(&s->rig, RELAY_MODE_SPLICE);
  s->rig.peers[1].closed = true;
  rig_connect(&s->rig, &s->rig.peers[0], &s->stream, 0);
  CHECK_INT(0, relay__tls_context_new(server ? &s->rig.server : &s->rig.client,
                                      server));
}

static void scene_close(struct scene *s) {
  relay__stream_close(s->stream);
  tls_peer_close(&s->peer);
  rig_close(&s->rig);
  CHECK_INT(0, ERR_peek_error());
}

static void on_shake(struct stream *stream, int events) {
  struct scene *s = stream->owner;

  (void)events;
  s->status = relay__tls_handshake(stream);
  if (s->status == TLS_IDENTIFIED) {
    CHECK_STR(s->expected, relay__tls_identity(stream));
    relay__tls_settle(stream, s->settled);
    s->status = relay__tls_handshake(stream);
  }
  CHECK_INT(0, ERR_peek_error());
  if (s->status == 0)
    CHECK_INT(0, relay__stream_watch(stream, UV_READABLE));
  else
    CHECK_INT(0, relay__stream_watch(stream, 0));
}

static void on_event(struct stream *stream, int events) {
  struct scene *s = stream->owner;

  s->events++;
  s->last_events = events;
}

/* A server of ours against a client that offers this. */
static void shake(struct scene *s, const char *identity,
                  const uint8_t *peer_key) {
  scene_open(s, true);
  s->settled = key;
  s->expected = identity != NULL ? identity : "";
  tls_peer_open(&s->peer, s->rig.peers[0].fd, identity, peer_key);
  CHECK_INT(0, relay__tls_accept(s->stream, s->rig.server));
  relay__stream_own(s->stream, on_shake, s);
  CHECK_INT(0, relay__stream_watch(s->stream, UV_READABLE));
}

static void finish_shake(struct scene *s) {
  RIG_UNTIL(
      &s->rig,
      ((s->peer_status == 0 ? s->peer_status = tls_peer_shake(&s->peer) : 0),
       s->status != 0 && (s->peer_status != 0 || s->status < 0)));
  relay__stream_own(s->stream, on_event, s);
}

static void open_pair(struct scene *s) {
  shake(s, "t/alice", key);
  finish_shake(s);
  CHECK_INT(TLS_DONE, s->status);
  CHECK_INT(1, s->peer_status);
}

/* Reads exactly so much, through the events of the loop. */
static size_t receive(struct scene *s, char *bytes, size_t count) {
  size_t length = 0;
  ssize_t got = UV_EAGAIN;

  RIG_UNTIL(&s->rig, ((got = relay__stream_recv(s->stream, bytes + length,
                                                count - length)) > 0
                          ? length += (size_t)got
                          : 0,
                      length == count || (got <= 0 && got != UV_EAGAIN)));
  return length;
}

/* What the peer reads next; 0 for close_notify, -1 for any other end. */
static int peer_read(struct scene *s, void *bytes, size_t size) {
  uint64_t until = uv_hrtime() + 10000000000ull;
  int count = -1;

  while (uv_hrtime() < until) {
    ERR_clear_error();
    count = SSL_read(s->peer.ssl, bytes, (int)size);
    if (count > 0 || SSL_get_error(s->peer.ssl, count) != SSL_ERROR_WANT_READ)
      break;
    rig_turn(&s->rig);
  }
  if (count > 0)
    return count;
  count = SSL_get_error(s->peer.ssl, count) == SSL_ERROR_ZERO_RETURN ? 0 : -1;
  ERR_clear_error();
  return count;
}

/* ---- who is let in ---------------------------------------------------- */

TEST(both_ends_prove_the_key) {
  uint8_t ours[SECRET_SIZE], theirs[SECRET_SIZE];
  struct scene s;
  char word[6] = "";

  open_pair(&s);
  CHECK_STR("TLSv1.3", SSL_get_version(s.peer.ssl));
  CHECK_STR("TLS_AES_128_GCM_SHA256", SSL_get_cipher_name(s.peer.ssl));
  CHECK_INT(1, SSL_session_reused(s.peer.ssl));
  CHECK_INT(0, relay__tls_export(s.stream, "EXPORTER-test", ours));
  CHECK_INT(1, SSL_export_keying_material(s.peer.ssl, theirs, sizeof(theirs),
                                          "EXPORTER-test", 13, NULL, 0, 0));
  CHECK_MEM(ours, theirs, sizeof(ours));
  tls_peer_send(&s.peer, "hello", 5);
  CHECK_INT(5, receive(&s, word, 5));
  CHECK_STR("hello", word);
  CHECK_INT(5, relay__stream_send(s.stream, "there", 5));
  CHECK_INT(5, SSL_read(s.peer.ssl, word, sizeof(word)));
  CHECK_MEM("there", word, 5);
  CHECK_INT(-1, SSL_read(s.peer.ssl, word, sizeof(word)));
  CHECK_INT(0, s.peer.tickets); /* nothing to come back with */
  scene_close(&s);
}

TEST(the_key_may_be_settled_later) {
  struct scene s;

  shake(&s, "t/alice", key);
  relay__stream_own(s.stream, on_event, &s);
  CHECK_INT(0, tls_peer_shake(&s.peer));
  RIG_UNTIL(&s.rig, s.events != 0);
  CHECK_INT(TLS_IDENTIFIED, relay__tls_handshake(s.stream));
  CHECK_INT(0, relay__stream_watch(s.stream, 0));
  CHECK_STR("t/alice", relay__tls_identity(s.stream));
  s.events = 0;
  for (int i = 0; i < 50; i++)
    rig_turn(&s.rig);
  CHECK_INT(0, s.events); /* it rests */
  CHECK_INT(0, tls_peer_shake(&s.peer));
  relay__tls_settle(s.stream, key);
  relay__stream_own(s.stream, on_shake, &s);
  on_shake(s.stream, 0);
  finish_shake(&s);
  CHECK_INT(TLS_DONE, s.status);
  CHECK_INT(1, s.peer_status);
  scene_close(&s);
}

/* What the peer of a failed handshake was sent. */
static size_t drain_answer(struct scene *s, char *bytes, size_t size) {
  ssize_t count = recv(s->rig.peers[0].fd, bytes, size, MSG_DONTWAIT);

  return count > 0 ? (size_t)count : 0;
}

/* The answer to a wrong key and the one to a name that nobody has. */
TEST(unknown_and_wrong_are_answered_alike) {
  char answers[2][256];
  size_t lengths[2];
  int alerts[2];

  for (int i = 0; i < 2; i++) {
    struct scene s;

    shake(&s, "t/alice", i == 0 ? other : key);
    s.settled = i == 0 ? key : NULL;
    CHECK_INT(0, tls_peer_shake(&s.peer));
    RIG_UNTIL(&s.rig, s.status != 0);
    CHECK_INT(RELAY_EKEY, s.status);
    CHECK(!s.stream->reset);
    for (int j = 0; j < 20; j++)
      rig_turn(&s.rig);
    CHECK_INT(0, drain_answer(&s, answers[i], sizeof(answers[i])));
    relay__tls_drop(s.stream); /* when it is to be answered */
    lengths[i] = drain_answer(&s, answers[i], sizeof(answers[i]));
    alerts[i] = (unsigned char)answers[i][6];
    scene_close(&s);
  }
  CHECK(lengths[0] > 0);
  CHECK_INT(lengths[0], lengths[1]);
  CHECK_MEM(answers[0], answers[1], lengths[0]);
  CHECK_INT(alerts[0], alerts[1]);
}

TEST(a_client_hears_that_its_key_is_not_taken) {
  struct rig rig;
  struct stream *server = NULL, *client = NULL;
  struct peer middle = {0};
  int status = 0, server_status = 0, i;

  rig_init(&rig, RELAY_MODE_SPLICE);
  rig.peers[0].closed = rig.peers[1].closed = true;
  rig_connect(&rig, &middle, &server, 0);
  CHECK_INT(0, relay__stream_open(&client, &rig.plane, middle.fd));
  CHECK_INT(0, relay__tls_context_new(&rig.client, false));
  CHECK_INT(0, relay__tls_context_new(&rig.server, true));
  CHECK_INT(0, relay__tls_accept(server, rig.server));
  CHECK_INT(0, relay__tls_connect(client, rig.client, "t/test", other));
  relay__stream_own(client, on_rig_shake, &status);
  relay__stream_own(server, on_rig_shake, &server_status);
  CHECK_INT(0, relay__stream_watch(server, UV_READABLE));
  on_rig_shake(client, 0);
  for (i = 0; i < 1000 && server_status == 0; i++)
    rig_turn(&rig);
  CHECK_INT(RELAY_EKEY, server_status);
  relay__tls_drop(server);
  for (i = 0; i < 1000 && status == 0; i++)
    rig_turn(&rig);
  CHECK_INT(RELAY_EKEY, status);
  relay__stream_close(client);
  relay__stream_close(server);
  rig_close(&rig);
}

/* Settings that weaken it are refused, whatever the key. */
static void refuse_client(const char *what, void (*weaken)(struct tls_peer *)) {
  struct scene s;

  shake(&s, "t/alice", key);
  weaken(&s.peer);
  if (s.peer.identity == NULL)
    s.expected = "";
  finish_shake(&s);
  if (!CHECK(s.status < 0 && s.status != UV_ECONNRESET))
    fprintf(stderr, "%s: %d\n", what, s.status);
  relay__tls_drop(s.stream);
  RIG_UNTIL(&s.rig, (s.peer_status = tls_peer_shake(&s.peer)) != 0);
  CHECK(s.peer_status < 0);
  scene_close(&s);
}

static void without_key(struct tls_peer *peer) {
  peer->identity = NULL;
}

static void with_old_version(struct tls_peer *peer) {
  SSL_set_max_proto_version(peer->ssl, TLS1_2_VERSION);
  peer->identity = NULL;
}

static void with_other_curve(struct tls_peer *peer) {
  SSL_set1_groups_list(peer->ssl, "P-256");
}

static void with_other_cipher(struct tls_peer *peer) {
  SSL_set_ciphersuites(peer->ssl, "TLS_CHACHA20_POLY1305_SHA256");
}

TEST(weaker_clients_are_refused) {
  refuse_client("without a key", without_key);
  refuse_client("TLS 1.2", with_old_version);
  refuse_client("another curve", with_other_curve);
  refuse_client("another cipher", with_other_cipher);
}

TEST(strange_identities_are_empty_ones) {
  static const char with_nul[] = "t/ali\0ce";
  char longest[TLS_IDENTITY_MAX + 2];
  struct scene s;

  memset(longest, 'x', sizeof(longest) - 1);
  longest[TLS_IDENTITY_MAX + 1] = '\0';
  for (int i = 0; i < 4; i++) {
    static const char *const names[] = {"t/\xc3\xa9", "a b"};

    shake(&s, i < 2 ? names[i] : longest, key);
    if (i == 3) {
      s.peer.identity = with_nul;
      s.peer.identity_length = sizeof(with_nul) - 1;
    }
    s.expected = "";
    finish_shake(&s);
    CHECK(s.status < 0);
    scene_close(&s);
  }
  longest[TLS_IDENTITY_MAX] = '\0';
  shake(&s, longest, key);
  finish_shake(&s);
  CHECK_INT(TLS_DONE, s.status);
  scene_close(&s);
}

static void expect_refusal(struct scene *s, const char *bytes, size_t count) {
  CHECK_INT(count, send(s->rig.peers[0].fd, bytes, count, MSG_NOSIGNAL));
  RIG_UNTIL(&s->rig, s->status != 0);
  CHECK_INT(RELAY_ETLS, s->status);
}

TEST(what_is_no_tls_is_refused) {
  static const char answer[] = "ERR code=protocol final=yes reason=x\n";
  static const char garbage[] = "\x16\x03\x01\x00\x05\xff\xff\xff\xff\xff";
  struct scene s;

  shake(&s, NULL, NULL);
  expect_refusal(&s, "RELAY/1 LISTEN port=8081\n", 25);
  scene_close(&s);
  shake(&s, NULL, NULL);
  expect_refusal(&s, garbage, sizeof(garbage) - 1);
  scene_close(&s);
  scene_open(&s, false);
  tls_peer_open(&s.peer, -1, NULL, NULL);
  CHECK_INT(0, relay__tls_connect(s.stream, s.rig.client, "t/a", key));
  relay__stream_own(s.stream, on_shake, &s);
  on_shake(s.stream, 0);
  expect_refusal(&s, answer, sizeof(answer) - 1);
  scene_close(&s);
}

/* ---- certificates ----------------------------------------------------- */

static void certify(SSL_CTX *ctx) {
  EVP_PKEY *pair = EVP_EC_gen("P-256");
  X509 *certificate = X509_new();
  X509_NAME *name = X509_get_subject_name(certificate);

  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, pair);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             (const unsigned char *)"relay", -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_sign(certificate, pair, EVP_sha256());
  CHECK_INT(1, SSL_CTX_use_certificate(ctx, certificate));
  CHECK_INT(1, SSL_CTX_use_PrivateKey(ctx, pair));
  X509_free(certificate);
  EVP_PKEY_free(pair);
}

/* A server that does not have the key, but a certificate to show instead. */
TEST(a_certificate_is_no_key) {
  struct scene s;

  scene_open(&s, false);
  tls_peer_open(&s.peer, s.rig.peers[0].fd, NULL, NULL);
  certify(s.peer.ctx);
  SSL_free(s.peer.ssl);
  s.peer.ssl = SSL_new(s.peer.ctx);
  SSL_set_fd(s.peer.ssl, s.rig.peers[0].fd);
  SSL_set_accept_state(s.peer.ssl);
  CHECK_INT(0, relay__tls_connect(s.stream, s.rig.client, "t/a", key));
  relay__stream_own(s.stream, on_shake, &s);
  on_shake(s.stream, 0);
  finish_shake(&s);
  CHECK_INT(RELAY_ETLS, s.status);
  scene_close(&s);
}

/* ---- how it ends ------------------------------------------------------ */

TEST(close_notify_is_the_end) {
  struct scene s;
  char bytes[16];

  open_pair(&s);
  CHECK_INT(0, relay__stream_watch(s.stream, UV_READABLE));
  tls_peer_send(&s.peer, "last", 4);
  SSL_shutdown(s.peer.ssl); /* and no FIN */
  RIG_UNTIL(&s.rig, s.events != 0);
  RIG_UNTIL(&s.rig, (rig_turn(&s.rig),
                     relay__stream_peek(s.stream, bytes, sizeof(bytes)) == 4));
  CHECK_INT(4, relay__stream_recv(s.stream, bytes, sizeof(bytes)));
  s.events = 0;
  CHECK_INT(0, relay__stream_watch(s.stream, UV_READABLE));
  RIG_UNTIL(&s.rig, s.events != 0); /* no event of the socket tells */
  CHECK_INT(0, relay__stream_recv(s.stream, bytes, sizeof(bytes)));
  CHECK(!s.stream->reset);
  /* The other half goes on. */
  CHECK_INT(2, relay__stream_send(s.stream, "me", 2));
  CHECK_INT(2, SSL_read(s.peer.ssl, bytes, sizeof(bytes)));
  CHECK_INT(0, relay__stream_shutdown(s.stream));
  CHECK_INT(0, peer_read(&s, bytes, sizeof(bytes)));
  CHECK_INT(0, recv(s.rig.peers[0].fd, bytes, 1, 0)); /* the FIN behind it */
  scene_close(&s);
}

TEST(a_fin_without_close_notify_is_a_reset) {
  struct scene s;
  char bytes[16];

  open_pair(&s);
  CHECK_INT(0, relay__stream_watch(s.stream, UV_READABLE));
  tls_peer_send(&s.peer, "not all", 7);
  shutdown(s.rig.peers[0].fd, SHUT_WR);
  CHECK_INT(7, receive(&s, bytes, 7));
  RIG_UNTIL(&s.rig, relay__stream_recv(s.stream, bytes, 1) != UV_EAGAIN);
  CHECK_INT(UV_ECONNRESET, relay__stream_recv(s.stream, bytes, 1));
  CHECK(s.stream->reset);
  scene_close(&s);
}

/* Cut in the middle of a record: what came before it is delivered. */
TEST(half_a_record_is_a_reset) {
  struct scene s;
  char record[256], bytes[16];
  BIO *memory = BIO_new(BIO_s_mem());
  int count;

  open_pair(&s);
  tls_peer_send(&s.peer, "whole", 5);
  SSL_set0_wbio(s.peer.ssl, memory);
  tls_peer_send(&s.peer, "half", 4);
  count = BIO_read(memory, record, sizeof(record));
  CHECK(count > 20);
  CHECK_INT(count / 2,
            send(s.rig.peers[0].fd, record, (size_t)count / 2, MSG_NOSIGNAL));
  shutdown(s.rig.peers[0].fd, SHUT_WR);
  CHECK_INT(5, receive(&s, bytes, 5));
  CHECK_MEM("whole", bytes, 5);
  RIG_UNTIL(&s.rig, relay__stream_recv(s.stream, bytes, 1) == UV_ECONNRESET);
  scene_close(&s);
}

TEST(a_forged_record_ends_the_stream) {
  struct scene s;
  char record[256], bytes[16];
  BIO *memory = BIO_new(BIO_s_mem());
  int count;

  open_pair(&s);
  SSL_set0_wbio(s.peer.ssl, memory);
  tls_peer_send(&s.peer, "forged", 6);
  count = BIO_read(memory, record, sizeof(record));
  record[count - 1] ^= 1;
  send(s.rig.peers[0].fd, record, (size_t)count, MSG_NOSIGNAL);
  RIG_UNTIL(&s.rig, relay__stream_recv(s.stream, bytes, 1) != UV_EAGAIN);
  CHECK_INT(RELAY_ETLS, relay__stream_recv(s.stream, bytes, 1));
  CHECK(s.stream->reset);
  CHECK(relay__stream_send(s.stream, "x", 1) < 0);
  scene_close(&s);
}

TEST(a_reset_comes_after_what_was_sent) {
  struct scene s;
  char bytes[16];

  open_pair(&s);
  tls_peer_send(&s.peer, "before", 6);
  RIG_UNTIL(&s.rig, peer_unsent(&s.rig.peers[0]) == 0);
  peer_reset(&s.rig.peers[0]);
  rig_turn(&s.rig);
  CHECK(relay__stream_send(s.stream, "x", 1) < 0); /* this meets it first */
  CHECK(s.stream->reset);
  CHECK_INT(6, relay__stream_recv(s.stream, bytes, sizeof(bytes)));
  CHECK_INT(UV_ECONNRESET, relay__stream_recv(s.stream, bytes, sizeof(bytes)));
  CHECK_INT(0, relay__stream_unsent(s.stream));
  scene_close(&s);
}

/* ---- what poll does not see ------------------------------------------- */

/* All of it is there before anything is read, and nothing comes after: what
   one read leaves inside OpenSSL must be told of all the same. */
TEST(bytes_inside_are_reported) {
  struct scene s;
  char bytes[32768];
  size_t got = 0;

  open_pair(&s);
  memset(bytes, 'x', sizeof(bytes));
  for (int i = 0; i < 20; i++)
    tls_peer_send(&s.peer, bytes, 100);
  CHECK_INT(0, relay__stream_watch(s.stream, UV_READABLE));
  while (got < 2000) {
    s.events = 0;
    RIG_UNTIL(&s.rig, s.events != 0);
    CHECK((s.last_events & UV_READABLE) != 0);
    if (s.events == 0)
      break;
    CHECK_INT(50, relay__stream_recv(s.stream, bytes, 50));
    got += 50;
    CHECK_INT(0, relay__stream_watch(s.stream, UV_READABLE));
  }
  s.events = 0;
  for (int i = 0; i < 50; i++)
    rig_turn(&s.rig);
  CHECK(s.events <= 1); /* and then nothing is */
  CHECK_INT(UV_EAGAIN, relay__stream_recv(s.stream, bytes, 1));
  scene_close(&s);
}

/* What came with the last flight of the handshake is not seen by poll. */
TEST(a_byte_right_behind_the_handshake) {
  struct scene s;
  char bytes[8];

  shake(&s, "t/alice", key);
  CHECK_INT(0, tls_peer_shake(&s.peer));
  RIG_UNTIL(&s.rig, tls_peer_shake(&s.peer) == 1);
  tls_peer_send(&s.peer, "early", 5);
  s.peer_status = 1;
  finish_shake(&s);
  CHECK_INT(TLS_DONE, s.status);
  CHECK_INT(0, relay__stream_watch(s.stream, UV_READABLE));
  RIG_UNTIL(&s.rig, s.events != 0);
  CHECK_INT(5, receive(&s, bytes, 5));
  scene_close(&s);
}

/* A flow that stops by its budget is called again, for the few bytes that are
   left of a record it has read. */
static void carry_budget_and(size_t more) {
  static char bytes[256 * 1024 + 1000];
  static const struct pair_limits none;
  struct scene s;
  struct stream *sink = NULL;
  struct peer *reader;
  size_t count = 256 * 1024 + more, got = 0;
  ssize_t part;
  int room = 1 << 20;

  open_pair(&s);
  setsockopt(s.stream->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
  setsockopt(s.rig.peers[0].fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
  tls_peer_send(&s.peer, bytes, more);
  tls_peer_send(&s.peer, bytes, count - more);
  RIG_UNTIL(&s.rig, peer_unsent(&s.rig.peers[0]) == 0);
  reader = &s.rig.peers[1];
  reader->closed = false;
  rig_connect(&s.rig, reader, &sink, 0);
  setsockopt(sink->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
  s.rig.pairs = 1;
  CHECK_INT(0, relay__pair_start(&s.rig.pair, &s.rig.plane, s.stream, sink,
                                 &none, on_rig_end, &s.rig));
  s.stream = NULL;
  RIG_UNTIL(&s.rig, ((part = recv(reader->fd, bytes, count, MSG_DONTWAIT)) > 0
                         ? got += (size_t)part
                         : 0,
                     got == count));
  scene_close(&s);
}

TEST(a_pair_goes_on_after_its_budget) {
  for (size_t more = 1; more < 1000 && check_ok_; more *= 2)
    carry_budget_and(more);
}

TEST(a_line_is_read_and_nothing_after_it) {
  struct scene s;
  char line[64], bytes[64];
  size_t length = 0;
  int status = 0;

  open_pair(&s);
  tls_peer_send(&s.peer, "RELAY/1 ", 8); /* three records, one after another */
  tls_peer_send(&s.peer, "ACC", 3);
  tls_peer_send(&s.peer, "EPT\nand what", 12);
  tls_peer_send(&s.peer, " follows", 8);
  RIG_UNTIL(&s.rig,
            status != 0 || (status = relay__stream_read_line(
                                s.stream, line, &length, sizeof(line))) != 0);
  CHECK_INT(1, status);
  CHECK_INT(15, length);
  CHECK_MEM("RELAY/1 ACCEPT\n", line, 15);
  CHECK_INT(0, relay__stream_watch(s.stream, UV_READABLE));
  RIG_UNTIL(&s.rig, s.events != 0);
  CHECK_INT(16, receive(&s, bytes, 16));
  CHECK_MEM("and what follows", bytes, 16);
  scene_close(&s);
}

/* Records of one byte and of none, keys changed on the way. */
TEST(small_records_and_new_keys) {
  struct scene s;
  char bytes[1000], answer;
  size_t got = 0;

  open_pair(&s);
  for (int i = 0; i < 1000; i++) {
    if (i % 100 == 50)
      SSL_key_update(s.peer.ssl, SSL_KEY_UPDATE_REQUESTED);
    tls_peer_send(&s.peer, &(char){(char)i}, 1);
  }
  while (got < 1000 && check_ok_) {
    got += receive(&s, bytes + got, 100);
    CHECK_INT(1, relay__stream_send(s.stream, "y", 1));
    CHECK_INT(1, SSL_read(s.peer.ssl, &answer, 1));
  }
  for (int i = 0; i < 1000; i++)
    CHECK_INT((char)i, bytes[i]);
  scene_close(&s);
}

/* A peer that only ever changes its keys is not read without end. */
TEST(records_without_bytes_hold_up_nobody) {
  struct scene s;
  char byte;

  open_pair(&s);
  for (int i = 0; i < 2000; i++) {
    SSL_key_update(s.peer.ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
    SSL_do_handshake(s.peer.ssl);
  }
  tls_peer_send(&s.peer, "x", 1);
  CHECK_INT(0, relay__stream_watch(s.stream, UV_READABLE));
  RIG_UNTIL(&s.rig, s.events > 1);
  s.events = 0;
  for (int i = 0; i < 1000 && relay__stream_recv(s.stream, &byte, 1) != 1; i++)
    s.events++;
  CHECK(s.events > 1 && s.events < 100); /* some at a time */
  scene_close(&s);
}

/* ---- what the socket does not take ------------------------------------ */

TEST(half_a_record_is_kept_and_counts) {
  static char bytes[64 * 1024], back[64 * 1024];
  struct scene s;
  size_t sent = 0, got = 0;
  ssize_t count;
  int unsent = 0, err = UV_EAGAIN;

  open_pair(&s);
  for (size_t i = 0; i < sizeof(bytes); i++)
    bytes[i] = (char)(i * 31 >> 3);
  while (s.stream->tls->out_length == 0 || sent < 1000000) {
    count = relay__stream_send(s.stream, bytes + sent % sizeof(bytes),
                               sizeof(bytes) - sent % sizeof(bytes));
    if (count == UV_EAGAIN)
      break;
    if (!CHECK(count > 0))
      break;
    sent += (size_t)count;
  }
  CHECK(s.stream->tls->out_length > 0);
  /* A batch of records, no more; how much of it is left is the socket's. */
  CHECK(s.stream->tls->out_length <= TLS_BATCH_RECORDS * 17 * 1024);
  CHECK_INT(UV_EAGAIN, relay__stream_send(s.stream, bytes, 1));
  ioctl(s.stream->fd, TIOCOUTQ, &unsent);
  CHECK_INT((size_t)unsent + s.stream->tls->out_length,
            relay__stream_unsent(s.stream));
  CHECK_INT(UV_EAGAIN, relay__stream_shutdown(s.stream));
  CHECK_INT(0, relay__stream_watch(s.stream, 0)); /* it is sent all the same */
  while (got < sent && check_ok_) {
    count = peer_read(&s, back, sizeof(back));
    CHECK(count > 0);
    for (ssize_t i = 0; i < count; i++)
      if (back[i] != bytes[(got + (size_t)i) % sizeof(bytes)])
        CHECK(!"the right byte");
    got += count > 0 ? (size_t)count : 0;
  }
  CHECK_INT(sent, got);
  CHECK_INT(0, s.events); /* nobody had asked for one */
  RIG_UNTIL(&s.rig, (err = relay__stream_shutdown(s.stream)) != UV_EAGAIN);
  CHECK_INT(0, err);
  CHECK_INT(0, peer_read(&s, back, 1));
  CHECK(s.stream->tls->out == NULL);
  scene_close(&s);
}

/* The other half has ended before, so the pair ends with the last record: it is
   with the socket first, and close_notify too. */
TEST(a_pair_ends_after_its_last_record) {
  static const struct pair_limits none;
  static unsigned char bytes[16 * 1024];
  struct scene s;
  struct stream *source = NULL;
  struct peer *a;
  uint64_t got = 0;
  int count;

  open_pair(&s);
  a = &s.rig.peers[1];
  a->closed = false;
  rig_connect(&s.rig, a, &source, 0);
  s.rig.pairs = 1;
  CHECK_INT(0, relay__pair_start(&s.rig.pair, &s.rig.plane, source, s.stream,
                                 &none, on_rig_end, &s.rig));
  SSL_shutdown(s.peer.ssl);
  shutdown(s.rig.peers[0].fd, SHUT_WR);
  while (s.stream->tls->out_length == 0) {
    RIG_UNTIL(&s.rig, relay__pair_bytes_in(s.rig.pair) == a->sent);
    peer_send(a, 5000);
    rig_turn(&s.rig);
    if (!check_ok_)
      break;
  }
  peer_shut(a);
  for (int i = 0; i < 50; i++)
    rig_turn(&s.rig);
  CHECK_INT(0, s.rig.ends);
  s.stream = NULL;
  while ((count = peer_read(&s, bytes, sizeof(bytes))) > 0)
    got += (uint64_t)count;
  CHECK_INT(0, count);
  CHECK_INT(a->sent, got);
  RIG_UNTIL(&s.rig, rig_ended(&s.rig));
  CHECK_INT(0, s.rig.reason);
  scene_close(&s);
}

TEST(no_splice_over_tls) {
  struct scene s;

  open_pair(&s);
  CHECK_INT(UV_EINVAL, relay__stream_splice_in(s.stream, 1, 100));
  CHECK_INT(UV_EINVAL, relay__stream_splice_out(s.stream, 0, 100));
  scene_close(&s);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(both_ends_prove_the_key);
  RUN(the_key_may_be_settled_later);
  RUN(unknown_and_wrong_are_answered_alike);
  RUN(a_client_hears_that_its_key_is_not_taken);
  RUN(weaker_clients_are_refused);
  RUN(strange_identities_are_empty_ones);
  RUN(what_is_no_tls_is_refused);
  RUN(a_certificate_is_no_key);
  RUN(close_notify_is_the_end);
  RUN(a_fin_without_close_notify_is_a_reset);
  RUN(half_a_record_is_a_reset);
  RUN(a_forged_record_ends_the_stream);
  RUN(a_reset_comes_after_what_was_sent);
  RUN(bytes_inside_are_reported);
  RUN(a_byte_right_behind_the_handshake);
  RUN(a_pair_goes_on_after_its_budget);
  RUN(a_line_is_read_and_nothing_after_it);
  RUN(small_records_and_new_keys);
  RUN(records_without_bytes_hold_up_nobody);
  RUN(half_a_record_is_kept_and_counts);
  RUN(a_pair_ends_after_its_last_record);
  RUN(no_splice_over_tls);
  return check_report();
}
