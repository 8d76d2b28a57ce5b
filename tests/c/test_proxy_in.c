/* SPDX-License-Identifier: MIT */
/*
 * PROXY headers as balancers send them, and the networks they come from.
 */
#include "check.h"
#include "wire/address.h"
#include "wire/network.h"
#include "wire/proxy.h"

#include <relay/agent.h>
#include <uv.h>

static struct proxy_header header;

/* What was told, as text. */
static const char *told(void) {
  static char text[2 * ADDRESS_TEXT_MAX + 4];
  char from[ADDRESS_TEXT_MAX], to[ADDRESS_TEXT_MAX];

  if (!header.told)
    return "nothing";
  relay__address_text((struct sockaddr *)&header.from, from, sizeof(from));
  relay__address_text((struct sockaddr *)&header.to, to, sizeof(to));
  snprintf(text, sizeof(text), "%s > %s", from, to);
  return text;
}

/* Each beginning of a header is one that is not whole, whatever its length,
   and what follows it is left alone. Exactly `length` bytes in memory, so that
   a sanitizer sees a read beyond them. */
static void check_whole(const void *bytes, size_t length) {
  static const char behind[] = "PROXY \r\n";
  char more[PROXY_HEADER_MAX + sizeof(behind)];
  size_t count;

  for (count = 0; count < length; count++)
    CHECK_INT(0, relay__proxy_parse(bytes, count, &header));
  memcpy(more, bytes, length);
  memcpy(more + length, behind, sizeof(behind));
  CHECK_INT(length, relay__proxy_parse(more, length + sizeof(behind), &header));
  CHECK_INT(length, relay__proxy_parse(bytes, length, &header));
}

TEST(reads_what_is_written) {
  static const char *const ends[][2] = {
      {"192.0.2.7:1234", "192.0.2.1:80"},
      {"[2001:db8::7]:65535", "[2001:db8::1]:0"},
  };
  char buffer[128], expected[2 * ADDRESS_TEXT_MAX];

  for (size_t i = 0; i < 2; i++)
    for (int version = 1; version <= 2; version++) {
      int length = relay_proxy_header(version, ends[i][0], ends[i][1], buffer,
                                      sizeof(buffer));

      check_whole(buffer, (size_t)length);
      snprintf(expected, sizeof(expected), "%s > %s", ends[i][0], ends[i][1]);
      CHECK_STR(expected, told());
    }
  for (int version = 1; version <= 2; version++) {
    int length = relay_proxy_header(version, "unknown", "unknown", buffer, 128);

    check_whole(buffer, (size_t)length);
    CHECK_STR("nothing", told());
  }
}

static int parse(const char *text) {
  return relay__proxy_parse(text, strlen(text), &header);
}

TEST(reads_lines) {
  char line[160];

  CHECK_INT(43, parse("PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n") - 2);
  CHECK_STR("192.0.2.7:1 > [2001:db8::1]:2", told());
  CHECK_INT(31, parse("PROXY UNKNOWN ffff::1 x y 7 8\r\n"));
  CHECK_STR("nothing", told());
  CHECK_INT(UV_EINVAL, parse("PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY TCP4 192.0.2.7 192.0.2.1 1 02\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY TCP4 192.0.2.7 192.0.2.1 1 -2\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY TCP4 relay 192.0.2.1 1 2\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXY \r\n"));
  CHECK_INT(UV_EINVAL, parse("GET / HTTP/1.1\r\n"));
  CHECK_INT(UV_EINVAL, parse("PROXX"));
  memset(line, 'x', sizeof(line));
  memcpy(line, "PROXY UNKNOWN ", 14);
  CHECK_INT(0, relay__proxy_parse(line, 106, &header));
  CHECK_INT(UV_EINVAL, relay__proxy_parse(line, 107, &header));
  memcpy(line + 105, "\r\n", 2);
  CHECK_INT(107, relay__proxy_parse(line, 107, &header));
  line[20] = '\0';
  CHECK_INT(UV_EINVAL, relay__proxy_parse(line, 107, &header));
}

TEST(reads_binary_headers) {
  unsigned char bytes[PROXY_HEADER_MAX + 1] =
      "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
      "\xc0\0\2\7\xc0\0\2\1\x04\xd2\0\x50";

  bytes[15] = 20; /* eight bytes of extensions */
  check_whole(bytes, 36);
  CHECK_STR("192.0.2.7:1234 > 192.0.2.1:80", told());
  bytes[13] = 0x12; /* UDP */
  CHECK_INT(36, relay__proxy_parse(bytes, 36, &header));
  CHECK_STR("nothing", told());
  bytes[13] = 0x21; /* too short for IPv6 */
  CHECK_INT(UV_EINVAL, relay__proxy_parse(bytes, 36, &header));
  bytes[13] = 0x11;
  bytes[15] = 11;
  CHECK_INT(UV_EINVAL, relay__proxy_parse(bytes, 27, &header));
  bytes[12] = 0x31;
  CHECK_INT(UV_EINVAL, relay__proxy_parse(bytes, 13, &header));
  bytes[12] = 0x22;
  CHECK_INT(UV_EINVAL, relay__proxy_parse(bytes, 13, &header));
  bytes[12] = 0x21;
  bytes[14] = (PROXY_HEADER_MAX - 16) >> 8;
  bytes[15] = (PROXY_HEADER_MAX - 16) & 0xff;
  CHECK_INT(0, relay__proxy_parse(bytes, PROXY_HEADER_MAX - 1, &header));
  CHECK_INT(PROXY_HEADER_MAX,
            relay__proxy_parse(bytes, PROXY_HEADER_MAX, &header));
  bytes[15]++;
  CHECK_INT(UV_EINVAL, relay__proxy_parse(bytes, 16, &header));
}

static bool holds(const char *networks, const char *host) {
  struct networks set;
  struct sockaddr_storage address;

  CHECK_INT(0, relay__networks_parse(networks, &set));
  CHECK_INT(0, relay__address_parse_host(host, 1, &address));
  return relay__networks_hold(&set, (struct sockaddr *)&address);
}

TEST(networks_hold_addresses) {
  CHECK(holds("192.0.2.0/24", "192.0.2.255"));
  CHECK(!holds("192.0.2.0/24", "192.0.3.0"));
  CHECK(holds("192.0.2.77/25", "192.0.2.1"));
  CHECK(!holds("192.0.2.77/25", "192.0.2.128"));
  CHECK(holds("192.0.2.1", "192.0.2.1"));
  CHECK(!holds("192.0.2.1", "192.0.2.0"));
  CHECK(holds("0.0.0.0/0", "255.1.2.3"));
  CHECK(!holds("0.0.0.0/0", "2001:db8::1"));
  CHECK(!holds("::/0", "192.0.2.1"));
  CHECK(holds("2001:db8::/33", "2001:db8:7fff::1"));
  CHECK(!holds("2001:db8::/33", "2001:db8:8000::1"));
  CHECK(holds("10.0.0.0/8,2001:db8::1,192.0.2.0/24", "2001:db8::1"));
  CHECK(holds("10.0.0.0/8,2001:db8::1,192.0.2.0/24", "192.0.2.3"));
}

TEST(refuses_what_is_no_network) {
  static const char *const bad[] = {
      "",      "x",           "192.0.2.0/33",  "/8", "::/129", "192.0.2.0/",
      "1.2.3", "192.0.2.0/a", "192.0.2.0/24,", ",",  "::1/-1", "::1/0001"};
  char many[NETWORKS_MAX * 4 + 4];
  struct networks set;

  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
    CHECK_INT(UV_EINVAL, relay__networks_parse(bad[i], &set));
  for (size_t i = 0; i <= NETWORKS_MAX; i++)
    memcpy(many + i * 4, "::1,", 4);
  many[NETWORKS_MAX * 4 - 1] = '\0';
  CHECK_INT(0, relay__networks_parse(many, &set));
  CHECK_INT(NETWORKS_MAX, set.count);
  many[NETWORKS_MAX * 4 - 1] = ',';
  many[NETWORKS_MAX * 4 + 3] = '\0';
  CHECK_INT(UV_E2BIG, relay__networks_parse(many, &set));
}

int main(void) {
  RUN(reads_what_is_written);
  RUN(reads_lines);
  RUN(reads_binary_headers);
  RUN(networks_hold_addresses);
  RUN(refuses_what_is_no_network);
  return check_report();
}
