/* SPDX-License-Identifier: MIT */
/*
 * Keys are gone from memory once nobody needs them: what was a key is looked
 * for where it was, also on the stack below.
 */
#include "host.h"
#include "net/dial.h"
#include "relay/private.h"

static const uint8_t key[SECRET_SIZE] = "a key that is easy to find again";

/* What calls that have returned left on the stack. */
static __attribute__((noinline)) bool is_on_stack(void) {
  unsigned char left[16 * 1024];

  __asm__ volatile("" : : "r"(left) : "memory");
  for (size_t at = 0; at + sizeof(key) <= sizeof(left); at++)
    if (memcmp(left + at, key, sizeof(key)) == 0)
      return true;
  return false;
}

static __attribute__((noinline)) void fill_stack(bool with_key) {
  unsigned char all[20 * 1024];

  memset(all, 0, sizeof(all));
  if (with_key)
    memcpy(all + sizeof(all) / 2, key, sizeof(key));
  __asm__ volatile("" : : "r"(all) : "memory");
}

TEST(a_settled_question_leaves_no_key) {
  relay_verdict allow = {.size = sizeof(allow), .key = key, .key_size = 32};
  struct host h;

  fill_stack(true);
  CHECK(is_on_stack()); /* what is looked for is found */
  host_prepare(&h);
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  /* Twice: the dynamic linker keeps registers where it finds a function. */
  for (int i = 0; i < 2; i++) {
    fill_stack(false);
    CHECK_INT(UV_ENOENT, relay_settle(h.relay, 1, &allow));
  }
  CHECK(!is_on_stack());
  host_close_relay(&h);
  CHECK_INT(0, uv_run(&h.loop, UV_RUN_DEFAULT));
  CHECK_INT(0, uv_loop_close(&h.loop));
}

static void on_dialed(struct dial *dial, int status, struct stream *stream) {
  CHECK(status < 0);
  CHECK(stream == NULL);
  *(bool *)dial->owner = true;
}

static bool is_wiped(const struct dial *dial) {
  static const uint8_t zeros[SECRET_SIZE];

  return memcmp(dial->key, zeros, sizeof(zeros)) == 0;
}

/* A port of which nobody listens, as one that was bound and let go. */
static void find_nobody(struct sockaddr_in *address) {
  socklen_t length = sizeof(*address);
  int fd = socket(AF_INET, SOCK_STREAM, 0);

  memset(address, 0, sizeof(*address));
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK_INT(0, bind(fd, (struct sockaddr *)address, sizeof(*address)));
  CHECK_INT(0, getsockname(fd, (struct sockaddr *)address, &length));
  close(fd);
}

TEST(a_dial_that_fails_leaves_no_key) {
  struct tls_context *tls;
  struct sockaddr_in nobody;
  struct plane plane;
  struct dial dial;
  uv_loop_t loop;
  bool done = false;
  int status;

  find_nobody(&nobody);
  CHECK_INT(0, uv_loop_init(&loop));
  CHECK_INT(0, relay__plane_init(&plane, &loop, RELAY_MODE_SPLICE, 0));
  CHECK_INT(0, relay__tls_context_new(&tls, false));
  relay__dial_init(&dial, &plane, on_dialed, &done);
  CHECK_INT(0, relay__dial_secure(&dial, tls, "t/a", key));
  /* At once, as the address cannot be one. */
  CHECK_INT(UV_EINVAL, relay__dial_start(&dial, (struct sockaddr *)&nobody,
                                         sizeof(dial.address) + 1, NULL));
  CHECK(is_wiped(&dial));
  CHECK_INT(0, relay__dial_secure(&dial, tls, "t/a", key));
  status = relay__dial_start(&dial, (struct sockaddr *)&nobody, sizeof(nobody),
                             NULL);
  while (status == 0 && !done)
    uv_run(&loop, UV_RUN_ONCE);
  CHECK(is_wiped(&dial));
  relay__plane_close(&plane);
  CHECK_INT(0, uv_run(&loop, UV_RUN_DEFAULT));
  relay__tls_context_free(tls);
  CHECK_INT(0, uv_loop_close(&loop));
}

int main(void) {
  RUN(a_settled_question_leaves_no_key);
  RUN(a_dial_that_fails_leaves_no_key);
  return check_report();
}
