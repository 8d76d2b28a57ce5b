# SPDX-License-Identifier: MIT
#
# Every call of the library that can fail, led through inject.c. What is not
# here is in the list of tests/check_injection.sh, with the reason.
set(injected
  malloc calloc realloc strdup free opendir getrlimit pipe pipe2 fcntl ioctl
  socket setsockopt getsockopt getsockname bind listen connect accept4 shutdown
  recv send splice read write uv_poll_init uv_poll_start uv_loop_init
  uv_async_init uv_mutex_init uv_thread_create_ex uv_random uv_getaddrinfo
  mkdir open openat flock fdopendir renameat unlinkat fstat realpath mkostemp
  fchmod fchown fsync rename HMAC)
list(TRANSFORM injected PREPEND -Wl,--wrap=)
target_sources(test_inject PRIVATE c/inject.c)
target_link_options(test_inject PRIVATE ${injected})
