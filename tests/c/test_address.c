/* SPDX-License-Identifier: MIT */
/* Addresses as text and back. */
#include "check.h"
#include "wire/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <uv.h>

static struct sockaddr_storage storage;
static struct sockaddr *const address = (struct sockaddr *)&storage;

static const char *text_of(const char *host, unsigned port) {
  static char text[ADDRESS_TEXT_MAX];

  if (relay__address_parse_host(host, port, &storage) != 0)
    return "refused";
  relay__address_text(address, text, sizeof text);
  return text;
}

static const char *host_of(void) {
  static char host[ADDRESS_HOST_MAX];

  relay__address_host(address, host, sizeof host);
  return host;
}

TEST(prints_addresses) {
  CHECK_STR("192.0.2.1:80", text_of("192.0.2.1", 80));
  CHECK_STR("192.0.2.1", host_of());
  CHECK_INT(80, relay__address_port(address));
  CHECK_INT(sizeof(struct sockaddr_in), relay__address_length(address));
  CHECK_STR("[2001:db8::1]:65535", text_of("2001:db8::1", 65535));
  CHECK_STR("2001:db8::1", host_of());
  CHECK_INT(sizeof(struct sockaddr_in6), relay__address_length(address));
  CHECK_STR("[2001:db8::1]:0", text_of("[2001:0DB8::1]", 0));
  CHECK_STR("[::]:80", text_of("::", 80));
}

TEST(unmaps_addresses) {
  struct sockaddr_in6 mapped = {.sin6_family = AF_INET6,
                                .sin6_port = htons(81)};
  struct sockaddr_in v4;

  CHECK_STR("192.0.2.1:80", text_of("::ffff:192.0.2.1", 80));
  CHECK_INT(AF_INET, storage.ss_family);
  CHECK_INT(1, inet_pton(AF_INET6, "::ffff:198.51.100.7", &mapped.sin6_addr));
  memcpy(&storage, &mapped, sizeof mapped);
  CHECK_STR("198.51.100.7", host_of()); /* printing does it by itself */
  CHECK_INT(AF_INET6, storage.ss_family);
  relay__address_unmap(&storage);
  memcpy(&v4, &storage, sizeof v4);
  CHECK_INT(AF_INET, v4.sin_family);
  CHECK_INT(81, ntohs(v4.sin_port));
  CHECK_INT(0xc6336407, ntohl(v4.sin_addr.s_addr));
  relay__address_unmap(&storage); /* nothing left to do */
  CHECK_STR("198.51.100.7", host_of());
  CHECK_STR("[2001:db8::1]:1", text_of("2001:db8::1", 1));
  relay__address_unmap(&storage);
  CHECK_STR("2001:db8::1", host_of());
}

TEST(keeps_scopes_of_link_local) {
  struct sockaddr_in6 v6;

  CHECK_STR("[fe80::1%2]:80", text_of("fe80::1%2", 80));
  memcpy(&v6, &storage, sizeof v6);
  CHECK_INT(2, v6.sin6_scope_id);
  CHECK_STR("fe80::1%2", host_of());
  CHECK_STR("[fe80::1%4294967295]:80", text_of("[fe80::1%4294967295]", 80));
  CHECK_STR("[fe80::1]:80", text_of("fe80::1", 80));
  CHECK_STR("refused", text_of("fe80::1%", 80));
  CHECK_STR("refused", text_of("fe80::1%eth0", 80));
  CHECK_STR("refused", text_of("fe80::1%4294967296", 80));
  CHECK_STR("refused", text_of("2001:db8::1%2", 80));
  /* A scope elsewhere says nothing, and is not shown. */
  CHECK_STR("[2001:db8::1]:80", text_of("2001:db8::1", 80));
  memcpy(&v6, &storage, sizeof v6);
  v6.sin6_scope_id = 3;
  memcpy(&storage, &v6, sizeof v6);
  CHECK_STR("2001:db8::1", host_of());
}

TEST(names_other_families) {
  char text[ADDRESS_TEXT_MAX];

  memset(&storage, 0, sizeof storage);
  storage.ss_family = AF_UNIX;
  relay__address_text(address, text, sizeof text);
  CHECK_STR("unix", text);
  CHECK_STR("unix", host_of());
  CHECK_INT(0, relay__address_port(address));
  CHECK_INT(sizeof(struct sockaddr_un), relay__address_length(address));
  relay__address_set_port(address, 80);
  CHECK_INT(0, relay__address_port(address));
  storage.ss_family = AF_UNSPEC;
  CHECK_STR("unknown", host_of());
  CHECK_INT(0, relay__address_length(address));
  relay__address_text(NULL, text, sizeof text);
  CHECK_STR("unknown", text);
}

TEST(fits_any_buffer) {
  char text[ADDRESS_TEXT_MAX] = "untouched";

  CHECK_STR("[2001:db8::1]:80", text_of("2001:db8::1", 80));
  relay__address_text(address, text, 0);
  CHECK_STR("untouched", text);
  relay__address_text(address, text, 4);
  CHECK_STR("[20", text);
  CHECK_STR(
      "[fe80:1111:2222:3333:4444:5555:6666:7777%4294967295]:65535",
      text_of("fe80:1111:2222:3333:4444:5555:6666:7777%4294967295", 65535));
}

TEST(sets_ports) {
  CHECK_STR("192.0.2.1:80", text_of("192.0.2.1", 80));
  relay__address_set_port(address, 65535);
  CHECK_INT(65535, relay__address_port(address));
  CHECK_STR("[::1]:80", text_of("::1", 80));
  relay__address_set_port(address, 1);
  CHECK_INT(1, relay__address_port(address));
}

TEST(refuses_what_is_no_literal) {
  static const char *const hosts[] = {
      "",        "localhost", "192.0.2",      "192.0.2.256", "192.0.2.1 ",
      "1",       "[]",        "[::1",         "::1]",        "[192.0.2.1]",
      "[[::1]]", ":::",       "192.0.2.1:80",
  };
  char longer[256];

  for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
    CHECK_STR("refused", text_of(hosts[i], 80));
  CHECK_STR("refused", text_of("::1", 65536));
  memset(longer, '1', sizeof longer);
  longer[sizeof longer - 1] = '\0';
  CHECK_STR("refused", text_of(longer, 80));
}

static char host[32];
static unsigned port;

static int split(const char *text) {
  strcpy(host, "untouched");
  port = 7;
  return relay__address_split(text, host, sizeof host, &port);
}

TEST(splits_host_and_port) {
  CHECK_INT(0, split("localhost:8080"));
  CHECK_STR("localhost", host);
  CHECK_INT(8080, port);
  CHECK_INT(0, split("[2001:db8::1]:0"));
  CHECK_STR("2001:db8::1", host);
  CHECK_INT(0, port);
  CHECK_INT(0, split("[fe80::1%2]:65535"));
  CHECK_STR("fe80::1%2", host);
  CHECK_INT(65535, port);
}

TEST(refuses_what_does_not_split) {
  static const char *const texts[] = {
      "",
      "localhost",
      ":80",
      "localhost:",
      "::1:80",
      "[::1]",
      "[::1]80",
      "[]:80",
      "[a]:80",
      "a:65536",
      "a:-1",
      "a:+1",
      "a: 1",
      "a:1 ",
      "a:b:1",
      "[::1]:",
      "[::1:80",
      "::1]:80",
      "[[::1]]:80",
      "a]:80",
      "a:99999999999999999999",
      "a-name-of-more-than-thirty-one-bytes:80",
  };

  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    if (!CHECK_INT(UV_EINVAL, split(texts[i])))
      fprintf(stderr, "  text: %s\n", texts[i]);
    CHECK_STR("untouched", host);
    CHECK_INT(7, port);
  }
}

int main(void) {
  RUN(prints_addresses);
  RUN(unmaps_addresses);
  RUN(keeps_scopes_of_link_local);
  RUN(names_other_families);
  RUN(fits_any_buffer);
  RUN(sets_ports);
  RUN(refuses_what_is_no_literal);
  RUN(splits_host_and_port);
  RUN(refuses_what_does_not_split);
  return check_report();
}
