/* SPDX-License-Identifier: MIT */
/* The tokens file: what it may say, and what is said of all else. */
#include "check.h"
#include "relay/tokens_text.h"
#include "wire/utc.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define KEY_ONE                                                                \
  "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F"
#define KEY_TWO                                                                \
  "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"

static struct tokens *tokens;
static char error[512];

static int parse(const char *text) {
  relay__tokens_free(tokens);
  tokens = NULL;
  error[0] = '\0';
  return relay__tokens_parse(&tokens, "f", text, strlen(text), error,
                             sizeof error);
}

static const struct token *find(const char *id) {
  return relay__tokens_find(tokens, id);
}

/* What is said of a text that is not one. */
static const char *complaint(const char *text) {
  CHECK_INT(UV_EFTYPE, parse(text));
  CHECK(tokens == NULL);
  return error;
}

TEST(reads_what_a_token_may_have) {
  const struct token *token;

  CHECK_INT(0, parse("# of the office\n"
                     "\n"
                     "db key=" KEY_ONE "\n"
                     "  \t# more\r\n"
                     "web\tkey=" KEY_TWO "  ports=443,8000-8100 leases=2 "
                     "visitors=50 expires=2026-12-31T23:59:59Z plain=yes "
                     "revoked=yes note=a b  c=d # e \r\n"
                     "last plain=no revoked=no key=" KEY_TWO));
  CHECK_INT(3, relay__tokens_count(tokens));
  token = find("db");
  CHECK_STR("db", token->id);
  CHECK_INT(0, token->key[0]);
  CHECK_INT(0x1f, token->key[31]);
  CHECK(token->ports_count == 0 && token->ports_text == NULL);
  CHECK(token->leases == 0 && token->visitors == 0 && token->expires == 0);
  CHECK(!token->plain && !token->revoked && token->note == NULL);
  token = find("web");
  CHECK_STR("443,8000-8100", token->ports_text);
  CHECK_INT(2, token->ports_count);
  CHECK_INT(2, token->leases);
  CHECK_INT(50, token->visitors);
  CHECK_INT(1798761599, token->expires);
  CHECK(token->plain && token->revoked);
  CHECK_STR("a b  c=d # e", token->note);
  CHECK_INT(5, token->line);
  CHECK(token == relay__tokens_at(tokens, 1));
  CHECK(!find("last")->plain);
}

TEST(finds_by_id) {
  char text[200 * 80], id[16];
  size_t length = 0;

  for (unsigned i = 0; i < 200; i++)
    length += (size_t)snprintf(text + length, sizeof text - length,
                               "t%u key=" KEY_ONE "\n", i * 7 % 200);
  CHECK_INT(0, parse(text));
  for (unsigned i = 0; i < 200; i++) {
    snprintf(id, sizeof id, "t%u", i);
    CHECK_STR(id, find(id) != NULL ? find(id)->id : NULL);
  }
  CHECK(find("t200") == NULL && find("") == NULL && find("T1") == NULL);
  CHECK(find(NULL) == NULL);
  CHECK(relay__tokens_find(NULL, "t1") == NULL);
  CHECK_INT(0, relay__tokens_count(NULL));
  CHECK_INT(0, parse(""));
  CHECK(find("t1") == NULL);
  relay__tokens_free(tokens);
  CHECK_INT(0, relay__tokens_read(&tokens, NULL, error, sizeof error));
  CHECK_INT(0, relay__tokens_count(tokens));
}

TEST(says_what_is_wrong_and_where) {
  static const char *const bad[][2] = {
      {"db\n", "f:1: 'db' has no key"},
      {"\n\nd.b key=" KEY_ONE,
       "f:3: 'd.b' is not an id (1 to 64 of A-Z, a-z, 0-9, _, -)"},
      {"db key=" KEY_ONE "\ndb2 key=" KEY_ONE "\ndb key=" KEY_TWO "\n",
       "f:3: 'db' is in line 1 already"},
      {"db key=" KEY_ONE "0", "f:1: key: not 64 hexadecimal digits"},
      {"db key=0g", "f:1: key: not 64 hexadecimal digits"},
      {"db key=" KEY_ONE " key=" KEY_ONE, "f:1: key: twice"},
      {"db key=" KEY_ONE " port=1",
       "f:1: unknown word 'port' (did you mean 'ports'?)"},
      {"db keys=" KEY_ONE, "f:1: unknown word 'keys' (did you mean 'key'?)"},
      {"db key=" KEY_ONE " expire=1",
       "f:1: unknown word 'expire' (did you mean 'expires'?)"},
      {"db key=" KEY_ONE " Plain=yes",
       "f:1: unknown word 'Plain' (did you mean 'plain'?)"},
      {"db key=" KEY_ONE " colour=1", "f:1: unknown word 'colour'"},
      {"db key=" KEY_ONE " =1", "f:1: unknown word ''"},
      {"db key=" KEY_ONE " plain", "f:1: 'plain' is not word=value"},
      {"db key=" KEY_ONE " plain=1", "f:1: plain: '1' is not yes or no"},
      {"db key=" KEY_ONE " revoked=", "f:1: revoked: '' is not yes or no"},
      {"db key=" KEY_ONE " leases=0",
       "f:1: leases: '0' is not a number (1-1000000)"},
      {"db key=" KEY_ONE " visitors=1x",
       "f:1: visitors: '1x' is not a number (1-1000000)"},
      {"db key=" KEY_ONE " visitors=99999999999999999999",
       "f:1: visitors: '99999999999999999999' is not a number (1-1000000)"},
      {"db key=" KEY_ONE " note=a\001b", "f:1: byte 79 is not text"},
      {"db key=" KEY_ONE " note=\xff", "f:1: byte 78 is not text"},
  };

  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK_STR(bad[i][1], complaint(bad[i][0]));
  CHECK_INT(UV_EFTYPE,
            relay__tokens_parse(&tokens, "f", "d\0b", 3, error, sizeof error));
  CHECK_STR("f:1: byte 2 is not text", error);
  /* What does not fit is cut. */
  CHECK_INT(UV_EFTYPE, relay__tokens_parse(&tokens, "f", "db", 2, error, 8));
  CHECK_STR("f:1: 'd", error);
}

TEST(bounds_a_line) {
  char text[TOKENS_LINE_MAX + 2] = "db key=" KEY_ONE " note=";
  size_t length = strlen(text);

  memset(text + length, 'n', sizeof text - length);
  text[TOKENS_LINE_MAX + 1] = '\0';
  CHECK_STR("f:1: longer than 4096 bytes", complaint(text));
  text[TOKENS_LINE_MAX] = '\0';
  CHECK_INT(0, parse(text));
}

TEST(reads_ports) {
  static const char *const bad[] = {"",      ",",   "1,",      "0",  "1-",
                                    "-1",    "2-1", "65536",   "a",  "1,,2",
                                    "1-2-3", "+1",  "1-65536", "0-1"};
  char text[128];
  const struct token *token;

  CHECK_INT(0, parse("a key=" KEY_ONE " ports=22,1024-2048,65535,1-1"));
  token = find("a");
  CHECK_INT(4, token->ports_count);
  CHECK(relay__token_allows_port(token, 22));
  CHECK(!relay__token_allows_port(token, 23));
  CHECK(relay__token_allows_port(token, 1024));
  CHECK(relay__token_allows_port(token, 2048));
  CHECK(!relay__token_allows_port(token, 2049));
  CHECK(relay__token_allows_port(token, 65535));
  CHECK(relay__token_allows_port(token, 1));
  CHECK(!relay__token_allows_port(token, 0));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char wanted[128];

    snprintf(text, sizeof text, "a ports=%s", bad[i]);
    snprintf(wanted, sizeof wanted,
             "f:1: ports: '%s' is not a list like 8081,9000-9100", bad[i]);
    CHECK_STR(wanted, complaint(text));
  }
}

static int64_t time_of(const char *text) {
  int64_t seconds = -1;

  return relay__utc_read(text, &seconds) ? seconds : -1;
}

TEST(reads_times) {
  static const char *const bad[] = {
      "",
      "2026-12-31",
      "2026-12-31T00:00:00",
      "2026-12-31T00:00:00z",
      "2026-12-31T00:00:00Z ",
      "2026-12-31 00:00:00Z",
      "2026-12-31T00:00:00+00:00",
      "1969-12-31T23:59:59Z",
      "2026-13-01T00:00:00Z",
      "2026-00-01T00:00:00Z",
      "2026-04-31T00:00:00Z",
      "2026-02-29T00:00:00Z",
      "2100-02-29T00:00:00Z",
      "2026-01-00T00:00:00Z",
      "2026-01-01T24:00:00Z",
      "2026-01-01T00:60:00Z",
      "2026-01-01T00:00:60Z",
      "20260-1-01T00:00:00Z",
  };
  char text[UTC_TEXT_SIZE];

  CHECK_INT(0, time_of("1970-01-01T00:00:00Z"));
  CHECK_INT(951782400, time_of("2000-02-29T00:00:00Z"));
  CHECK_INT(1785542399, time_of("2026-07-31T23:59:59Z"));
  CHECK_INT(INT64_C(253402300799), time_of("9999-12-31T23:59:59Z"));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK_INT(-1, time_of(bad[i]));
  /* Each day of four centuries is the one after the day before. */
  for (int64_t day = 0; day < 146097; day++) {
    relay__utc_write(day * 86400 + 3723, text);
    if (!CHECK_INT(day * 86400 + 3723, time_of(text)))
      break;
  }
}

TEST(says_why_a_token_is_not_good) {
  CHECK_INT(0, parse("a key=" KEY_ONE "\n"
                     "b key=" KEY_ONE " revoked=yes\n"
                     "c key=" KEY_ONE " expires=1970-01-01T00:01:40Z\n"
                     "e key=" KEY_ONE " expires=1970-01-01T00:00:00Z\n"));
  CHECK_STR(NULL, relay__token_refusal(find("a"), 1));
  CHECK_STR("token is revoked", relay__token_refusal(find("b"), 1));
  CHECK_STR(NULL, relay__token_refusal(find("c"), 99));
  CHECK_STR("token has expired", relay__token_refusal(find("c"), 100));
  CHECK_STR("token has expired", relay__token_refusal(find("e"), 100));
  CHECK_STR("token is unknown", relay__token_refusal(find("d"), 1));
}

/* ---- writing ---------------------------------------------------------- */

static const char *written(const char *id) {
  static char line[TOKENS_LINE_MAX + 2];

  return relay__tokens_write_line(find(id), line) == strlen(line) ? line : "?";
}

TEST(writes_what_it_reads) {
  static const char text[] =
      "web key=" KEY_TWO " ports=443,8000-8100 leases=2 visitors=50 "
      "expires=2026-12-31T23:59:59Z plain=yes revoked=yes note=a b\n";
  struct token token = {.id = "a"};
  char line[TOKENS_LINE_MAX + 2], note[TOKENS_LINE_MAX];

  CHECK_INT(0, parse(text));
  CHECK_STR(text, written("web"));
  CHECK_INT(0, parse("db  key=" KEY_TWO "\tplain=no"));
  CHECK_STR("db key=" KEY_TWO "\n", written("db"));
  memset(note, 'n', sizeof note);
  note[sizeof note - 1] = '\0';
  token.note = note;
  CHECK_INT(0, relay__tokens_write_line(&token, line));
  token.note = note + strlen("a key= note=") + 64 - 1;
  CHECK_INT(TOKENS_LINE_MAX + 1, relay__tokens_write_line(&token, line));
  CHECK_INT(0, parse(line));
}

/* ---- the file --------------------------------------------------------- */

static char path[64];

static int read_with_mode(mode_t mode) {
  CHECK_INT(0, chmod(path, mode));
  relay__tokens_free(tokens);
  tokens = NULL;
  return relay__tokens_read(&tokens, path, error, sizeof error);
}

TEST(reads_a_private_file_only) {
  char wanted[256];
  int fd;

  snprintf(path, sizeof path, "/tmp/test_tokens.XXXXXX");
  fd = mkstemp(path);
  CHECK(fd >= 0);
  CHECK_INT(0, read_with_mode(0600));
  CHECK_INT(0, relay__tokens_count(tokens));
  CHECK_INT(4, write(fd, "# a\n", 4));
  CHECK_INT(0, read_with_mode(0400));
  CHECK_INT(UV_EFTYPE, read_with_mode(0640));
  snprintf(wanted, sizeof wanted,
           "%s: mode 0640 lets others at its keys; it has to be 0600", path);
  CHECK_STR(wanted, error);
  CHECK_INT(UV_EFTYPE, read_with_mode(0604));
  CHECK_INT(UV_EFTYPE, read_with_mode(0620));
  CHECK_INT(0, ftruncate(fd, TOKENS_FILE_MAX + 1));
  CHECK_INT(UV_EFTYPE, read_with_mode(0600));
  close(fd);
  unlink(path);
  CHECK_INT(UV_ENOENT, relay__tokens_read(&tokens, path, error, sizeof error));
  snprintf(wanted, sizeof wanted, "%s: no such file or directory", path);
  CHECK_STR(wanted, error);
  CHECK_INT(UV_EFTYPE,
            relay__tokens_read(&tokens, "/tmp", error, sizeof error));
  CHECK_STR("/tmp: it is not a file", error);
}

int main(void) {
  RUN(reads_what_a_token_may_have);
  RUN(finds_by_id);
  RUN(says_what_is_wrong_and_where);
  RUN(bounds_a_line);
  RUN(reads_ports);
  RUN(reads_times);
  RUN(says_why_a_token_is_not_good);
  RUN(writes_what_it_reads);
  RUN(reads_a_private_file_only);
  relay__tokens_free(tokens);
  return check_report();
}
