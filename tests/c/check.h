/* SPDX-License-Identifier: MIT */
/*
 * What C tests are made of. A failed check says where and goes on; it survives
 * NDEBUG. The last line a test prints is 'N passed, N failed', in tests.
 *
 *   TEST(parses_a_line) { CHECK_INT(5, parse("PING\n")); }
 *   int main(void) { RUN(parses_a_line); return check_report(); }
 */
#ifndef RELAY_TESTS_CHECK_H
#define RELAY_TESTS_CHECK_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static unsigned check_passed_, check_failed_;
static bool check_ok_;

#define TEST(name) static void test_##name(void)

#define RUN(name)                                                              \
  do {                                                                         \
    check_ok_ = true;                                                          \
    test_##name();                                                             \
    if (check_ok_)                                                             \
      check_passed_++;                                                         \
    else                                                                       \
      check_failed_++, fprintf(stderr, "not ok: %s\n", #name);                 \
  } while (0)

#define CHECK(cond)                                                            \
  check_that_((cond) ? true : false, __FILE__, __LINE__, #cond)
#define CHECK_INT(expected, actual)                                            \
  check_int_((int64_t)(expected), (int64_t)(actual), __FILE__, __LINE__,       \
             #actual)
#define CHECK_STR(expected, actual)                                            \
  check_str_((expected), (actual), __FILE__, __LINE__, #actual)
/* The bytes of two blocks of `count`. */
#define CHECK_MEM(expected, actual, count)                                     \
  check_that_(memcmp((expected), (actual), (count)) == 0, __FILE__, __LINE__,  \
              #actual " equals " #expected)

static inline bool check_that_(bool ok, const char *file, int line,
                               const char *what) {
  if (!ok) {
    check_ok_ = false;
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
  }
  return ok;
}

static inline bool check_int_(int64_t expected, int64_t actual,
                              const char *file, int line, const char *what) {
  if (expected == actual)
    return true;
  check_ok_ = false;
  fprintf(stderr, "%s:%d: %s is %lld, expected %lld\n", file, line, what,
          (long long)actual, (long long)expected);
  return false;
}

static inline bool check_str_(const char *expected, const char *actual,
                              const char *file, int line, const char *what) {
  if (expected == actual)
    return true;
  if (expected != NULL && actual != NULL && strcmp(expected, actual) == 0)
    return true;
  check_ok_ = false;
  fprintf(stderr, "%s:%d: %s is \"%s\", expected \"%s\"\n", file, line, what,
          actual != NULL ? actual : "(null)",
          expected != NULL ? expected : "(null)");
  return false;
}

static inline int check_report(void) {
  printf("%u passed, %u failed\n", check_passed_, check_failed_);
  return check_failed_ != 0 || check_passed_ == 0;
}

/* Of this process, below 1024. */
static inline int count_descriptors(void) {
  int count = 0;

  for (int fd = 0; fd < 1024; fd++)
    count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

#endif
