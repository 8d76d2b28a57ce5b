/* SPDX-License-Identifier: MIT */
/*
 * PROXY protocol headers against vectors written out by hand.
 */
#include <relay/agent.h>
#include <uv.h>

#include "check.h"

TEST(writes_proxy_headers) {
  static const char v2_ipv4[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
                                "\xc0\0\2\7\xc0\0\2\1\x04\xd2\0\x50";
  static const char v2_ipv6[] =
      "\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"
      "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\7"
      "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\x04\xd2\0\x50";
  static const char v2_local[] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
  char buffer[128];
  int length =
      relay_proxy_header(1, "192.0.2.7:1234", "192.0.2.1:80", buffer, 128);

  buffer[length] = '\0';
  CHECK_STR("PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\n", buffer);
  length = relay_proxy_header(1, "[2001:db8::7]:1234", "[2001:db8::1]:80",
                              buffer, 128);
  buffer[length] = '\0';
  CHECK_STR("PROXY TCP6 2001:db8::7 2001:db8::1 1234 80\r\n", buffer);
  length = relay_proxy_header(1, "unknown", "192.0.2.1:80", buffer, 128);
  buffer[length] = '\0';
  CHECK_STR("PROXY UNKNOWN\r\n", buffer);
  CHECK_INT(
      28, relay_proxy_header(2, "192.0.2.7:1234", "192.0.2.1:80", buffer, 128));
  CHECK_MEM(v2_ipv4, buffer, 28);
  CHECK_INT(52, relay_proxy_header(2, "[2001:db8::7]:1234", "[2001:db8::1]:80",
                                   buffer, 128));
  CHECK_MEM(v2_ipv6, buffer, 52);
  CHECK_INT(16, relay_proxy_header(2, "192.0.2.7:1", "[2001:db8::1]:80", buffer,
                                   128));
  CHECK_MEM(v2_local, buffer, 16);
  CHECK_INT(UV_EINVAL,
            relay_proxy_header(3, "192.0.2.7:1", "192.0.2.1:2", buffer, 128));
  CHECK_INT(UV_ENOBUFS,
            relay_proxy_header(2, "192.0.2.7:1", "192.0.2.1:2", buffer, 20));
}

int main(void) {
  RUN(writes_proxy_headers);
  return check_report();
}
