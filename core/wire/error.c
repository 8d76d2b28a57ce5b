/* SPDX-License-Identifier: MIT */
/*
 * Words for errors, the library's own and libuv's. Every text is a literal:
 * uv_strerror allocates for codes it does not know and never frees.
 */
#include <relay/base.h>
#include <uv.h>

const char *relay_strerror(int error) {
  switch (error) {
  case 0:
    return "no error";
#define CASE(number, name, code, text)                                         \
  case RELAY_##name:                                                           \
    return text;
    RELAY_ERROR_MAP(CASE)
#undef CASE
#define CASE(name, text)                                                       \
  case UV_##name:                                                              \
    return text;
    UV_ERRNO_MAP(CASE)
#undef CASE
  default:
    return "unknown error";
  }
}

const char *relay_error_name(int error) {
  switch (error) {
  case 0:
    return "ok";
#define CASE(number, name, code, text)                                         \
  case RELAY_##name:                                                           \
    return code;
    RELAY_ERROR_MAP(CASE)
#undef CASE
#define CASE(name, text)                                                       \
  case UV_##name:                                                              \
    return #name;
    UV_ERRNO_MAP(CASE)
#undef CASE
  default:
    return "unknown";
  }
}

const char *relay_version(void) {
  return RELAY_VERSION;
}
