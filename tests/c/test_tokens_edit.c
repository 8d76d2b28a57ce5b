/* SPDX-License-Identifier: MIT */
/* Changing the tokens file through the public calls: what stays as it was. */
#include "check.h"

#include <fcntl.h>
#include <relay/relay.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

static char directory[64], path[96], error[512], made[RELAY_TOKEN_SIZE];

#define NEW(...)                                                               \
  relay_token_new(path,                                                        \
                  &(relay_token){.size = sizeof(relay_token), __VA_ARGS__},    \
                  made, sizeof made, error, sizeof error)

static void write_file(const char *text) {
  int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

  CHECK_INT(strlen(text), write(fd, text, strlen(text)));
  close(fd);
}

static const char *read_file(void) {
  static char text[8192];
  int fd = open(path, O_RDONLY);
  ssize_t count = read(fd, text, sizeof text - 1);

  CHECK(count >= 0);
  text[count >= 0 ? count : 0] = '\0';
  close(fd);
  return text;
}

static int count_files(void) {
  uv_fs_t request;
  int count = uv_fs_scandir(NULL, &request, directory, 0, NULL);

  uv_fs_req_cleanup(&request);
  return count;
}

static int note_token(void *data, const relay_token *token) {
  relay_token *last = data;

  *last = *token;
  last->id = strcmp(token->id, "web") == 0 ? "web" : "other";
  return strcmp(token->id, "stop") == 0 ? 7 : 0;
}

static int each(relay_token *last) {
  return relay_token_each(path, note_token, last, error, sizeof error);
}

/* What is in the file beside the lines added stays as it was written. */
TEST(adds_a_line) {
  char text[4096];
  struct stat file;
  relay_token last;

  unlink(path);
  CHECK_INT(0, NEW(.id = "db"));
  CHECK(strncmp(made, "db.", 3) == 0);
  CHECK_INT(0, stat(path, &file));
  CHECK_INT(0100600, file.st_mode);
  CHECK(strstr(read_file(), made + 3) == NULL);
  snprintf(text, sizeof text, "# the office\n\n  %s\t# odd, and no LF",
           "old  key=0000000000000000000000000000000000000000000000000000000000"
           "000000 note=x");
  write_file(text);
  CHECK_INT(0, NEW(.id = "web", .ports = "443,8000-8100", .leases = 2,
                   .visitors = 3, .expires = 1798761599, .plain = 1,
                   .note = "a b"));
  CHECK_MEM(text, read_file(), strlen(text));
  CHECK_MEM("\nweb key=", read_file() + strlen(text), 9);
  CHECK_STR(" ports=443,8000-8100 leases=2 visitors=3 "
            "expires=2026-12-31T23:59:59Z plain=yes note=a b\n",
            read_file() + strlen(text) + 9 + 64);
  CHECK_INT(0, each(&last));
  CHECK_STR("web", last.id);
  CHECK(last.leases == 2 && last.visitors == 3 && last.plain && !last.revoked);
  CHECK_INT(1798761599, last.expires);
  CHECK_INT(1, count_files());
}

TEST(revokes_a_line) {
  char text[4096], *line;
  relay_token last;

  unlink(path);
  CHECK_INT(0, NEW(.id = "a"));
  CHECK_INT(0, NEW(.id = "web", .note = "n"));
  CHECK_INT(0, NEW(.id = "z"));
  snprintf(text, sizeof text, "%s", read_file());
  CHECK_INT(0, relay_token_revoke(path, "web", error, sizeof error));
  line = strstr(text, " note=n");
  CHECK_MEM(text, read_file(), (size_t)(line - text));
  CHECK_MEM(" revoked=yes", read_file() + (line - text), 12);
  CHECK_STR(line, read_file() + (line - text) + 12);
  snprintf(text, sizeof text, "%s", read_file());
  CHECK_INT(0, relay_token_revoke(path, "web", error, sizeof error));
  CHECK_STR(text, read_file());
  CHECK_INT(0, relay_token_revoke(path, "z", error, sizeof error));
  CHECK_INT(0, relay_token_revoke(path, "a", error, sizeof error));
  CHECK_INT(0, each(&last));
  CHECK(last.revoked);
  CHECK_INT(UV_ENOENT, relay_token_revoke(path, "w", error, sizeof error));
  CHECK(strstr(error, ": there is no token 'w'") != NULL);
  unlink(path);
  CHECK_INT(UV_ENOENT, relay_token_revoke(path, "a", error, sizeof error));
  CHECK_INT(0, count_files());
}

TEST(stops_where_told) {
  relay_token last;

  unlink(path);
  CHECK_INT(0, NEW(.id = "stop"));
  CHECK_INT(0, NEW(.id = "web"));
  CHECK_INT(7, each(&last));
  CHECK_STR("other", last.id);
  CHECK_INT(0, relay_token_each(path, NULL, NULL, error, sizeof error));
}

TEST(refuses_what_no_line_can_hold) {
  static char longest[4096];
  relay_token wish = {.size = sizeof wish};
  char before[1024];

  memset(longest, 'n', sizeof longest - 1);
  unlink(path);
  CHECK_INT(UV_EINVAL, NEW(.id = NULL));
  CHECK_INT(UV_EINVAL, NEW(.id = "a b"));
  CHECK_STR("'x a' is not an id (1 to 64 of A-Z, a-z, 0-9, _, -)",
            NEW(.id = "x a") == UV_EINVAL ? error : "");
  CHECK_INT(UV_EINVAL, NEW(.id = "#a"));
  CHECK_INT(UV_EINVAL, NEW(.id = ""));
  CHECK_INT(UV_EINVAL, NEW(.id = "a\nb"));
  CHECK_INT(UV_EINVAL, NEW(.id = "a", .note = "x\ny key=1"));
  CHECK_INT(UV_EINVAL, NEW(.id = "a", .note = "\033[2J"));
  CHECK_INT(UV_EINVAL, NEW(.id = "a", .note = longest));
  CHECK_INT(UV_EINVAL, NEW(.id = "a", .ports = ""));
  CHECK_INT(UV_EINVAL, NEW(.id = "a", .ports = "0"));
  CHECK_INT(UV_EINVAL, NEW(.id = "a", .ports = "1 plain=yes"));
  CHECK_INT(UV_EINVAL, NEW(.id = "a", .leases = 1000001));
  CHECK_INT(UV_EINVAL, NEW(.id = "a", .expires = -1));
  CHECK_INT(UV_EINVAL, NEW(.id = "a", .expires = INT64_C(253402300800)));
  wish.id = "a";
  CHECK_INT(UV_EINVAL,
            relay_token_new(path, &wish, made, 10, error, sizeof error));
  wish.size = 1;
  CHECK_INT(UV_EINVAL, relay_token_new(path, &wish, made, sizeof made, error,
                                       sizeof error));
  wish.size = sizeof(wish) + 1;
  CHECK_INT(UV_EINVAL, relay_token_new(path, &wish, made, sizeof made, error,
                                       sizeof error));
  CHECK_INT(0, count_files());
  CHECK_INT(0, NEW(.id = "a"));
  snprintf(before, sizeof before, "%s", read_file());
  CHECK_INT(UV_EEXIST, NEW(.id = "a"));
  CHECK_STR(before, read_file());
}

/* A host that was built before tokens had notes. */
TEST(takes_an_older_struct) {
  relay_token wish = {offsetof(relay_token, note), .id = "old"};

  unlink(path);
  wish.note = "nobody may read this";
  CHECK_INT(
      0, relay_token_new(path, &wish, made, sizeof made, error, sizeof error));
  CHECK(strstr(read_file(), "old key=") != NULL);
  CHECK(strstr(read_file(), "note=") == NULL);
}

TEST(leaves_a_bad_file_alone) {
  char wanted[256];

  write_file("a key=12\n");
  CHECK_INT(UV_EFTYPE, NEW(.id = "b"));
  snprintf(wanted, sizeof wanted, "%s:1: key: not 64 hexadecimal digits", path);
  CHECK_STR(wanted, error);
  CHECK_INT(UV_EFTYPE, relay_token_revoke(path, "a", error, sizeof error));
  CHECK_STR("a key=12\n", read_file());
  write_file("");
  CHECK_INT(0, chmod(path, 0644));
  CHECK_INT(UV_EFTYPE, NEW(.id = "b"));
  CHECK_STR("", read_file());
  CHECK_INT(0, chmod(path, 0600));
  CHECK_INT(1, count_files());
}

/* A link stays one, and its file keeps mode and owner. */
TEST(keeps_mode_owner_and_links) {
  char real[128];
  struct stat file;

  unlink(path);
  snprintf(real, sizeof real, "%s/real", directory);
  CHECK_INT(0, symlink("real", path));
  CHECK_INT(0, NEW(.id = "a"));
  CHECK_INT(0, lstat(path, &file));
  /* There was nothing behind it: the file is where the link was. */
  CHECK(S_ISREG(file.st_mode));
  CHECK_INT(0, rename(path, real));
  CHECK_INT(0, chmod(real, 0400));
  if (geteuid() == 0)
    CHECK_INT(0, chown(real, 65534, 65534));
  CHECK_INT(0, symlink("real", path));
  CHECK_INT(0, NEW(.id = "b"));
  CHECK_INT(0, lstat(path, &file));
  CHECK(S_ISLNK(file.st_mode));
  CHECK_INT(0, stat(path, &file));
  CHECK_INT(0100400, file.st_mode);
  if (geteuid() == 0)
    CHECK(file.st_uid == 65534 && file.st_gid == 65534);
  CHECK_INT(2, count_files());
  unlink(real);
  unlink(path);
}

/* Whoever comes while another holds the lock waits for it. */
static void release_later(void *fd) {
  usleep(100000);
  close(*(int *)fd);
}

TEST(waits_for_the_lock) {
  int fd = open(directory, O_RDONLY | O_DIRECTORY);
  uint64_t began = uv_hrtime();
  uv_thread_t thread;

  CHECK_INT(0, flock(fd, LOCK_EX));
  CHECK_INT(0, uv_thread_create(&thread, release_later, &fd));
  CHECK_INT(0, NEW(.id = "locked"));
  CHECK(uv_hrtime() - began >= 90000000);
  uv_thread_join(&thread);
  unlink(path);
}

TEST(times_are_public) {
  int64_t seconds = 0;
  char text[32];

  CHECK_INT(0, relay_token_read_time("2026-12-31T23:59:59Z", &seconds));
  CHECK_INT(1798761599, seconds);
  CHECK_INT(UV_EINVAL, relay_token_read_time("tomorrow", &seconds));
  relay_token_write_time(seconds, text);
  CHECK_STR("2026-12-31T23:59:59Z", text);
}

int main(void) {
  snprintf(directory, sizeof directory, "/tmp/test_tokens_edit.XXXXXX");
  CHECK(mkdtemp(directory) != NULL);
  snprintf(path, sizeof path, "%s/tokens", directory);
  RUN(adds_a_line);
  RUN(revokes_a_line);
  RUN(stops_where_told);
  RUN(refuses_what_no_line_can_hold);
  RUN(takes_an_older_struct);
  RUN(leaves_a_bad_file_alone);
  RUN(keeps_mode_owner_and_links);
  RUN(waits_for_the_lock);
  RUN(times_are_public);
  unlink(path);
  CHECK_INT(0, rmdir(directory));
  return check_report();
}
