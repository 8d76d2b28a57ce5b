/* SPDX-License-Identifier: MIT */
/*
 * expose: gets a public address from a relay and forwards each visitor of it
 * to a local service. A service given by name is looked up for each visitor,
 * so that it may move.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <relay/agent.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "agent_cli.h"

#define PREAMBLE_MAX 256

/* Where visitors go: an address, or else a name (NULL: this machine) and a
   port. */
struct target {
  struct sockaddr_storage address;
  socklen_t address_length; /* 0: by name */
  char name[256];
  bool local;
  unsigned port;
};

struct expose {
  struct agent_cli base;
  struct target target;
  unsigned proxy_version; /* 0: no header */
};

/* ---- TARGET ----------------------------------------------------------- */

/* "unix:@NAME" is a name in the abstract space. */
static bool read_unix(const char *path, struct target *target) {
  struct sockaddr_un address = {0};
  size_t length = strlen(path);

  if (length == 0 || length >= sizeof(address.sun_path))
    return false;
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path, length);
  if (path[0] == '@')
    address.sun_path[0] = '\0';
  target->address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
                                       length + (path[0] == '@' ? 0 : 1));
  memcpy(&target->address, &address, sizeof(address));
  return true;
}

static bool read_literal(struct target *target) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)&target->address;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&target->address;

  if (inet_pton(AF_INET, target->name, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)target->port);
    target->address_length = sizeof(*v4);
  } else if (inet_pton(AF_INET6, target->name, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)target->port);
    target->address_length = sizeof(*v6);
  }
  return target->address_length != 0;
}

/* "[HOST]:PORT" or "HOST:PORT", HOST copied to target->name. The port's text,
   or NULL. */
static const char *split_host(const char *text, struct target *target) {
  const char *host = text, *end = strrchr(text, ':');

  if (end == NULL)
    return NULL;
  const char *port = end + 1;
  if (host[0] == '[' && end > host && end[-1] == ']')
    host++, end--;
  else if (memchr(host, ':', (size_t)(end - host)) != NULL)
    return NULL; /* IPv6 without brackets: where would the port begin? */
  if (end == host || (size_t)(end - host) >= sizeof(target->name))
    return NULL;
  memcpy(target->name, host, (size_t)(end - host));
  target->name[end - host] = '\0';
  return port;
}

static bool read_target(const char *text, struct target *target) {
  bool bracketed = text[0] == '[';

  memset(target, 0, sizeof(*target));
  if (strncmp(text, "unix:", 5) == 0)
    return read_unix(text + 5, target);
  if (cli_read_port(text, 1, &target->port)) {
    target->local = true;
    return true;
  }
  const char *port = split_host(text, target);
  if (port == NULL || !cli_read_port(port, 1, &target->port))
    return false;
  return read_literal(target) || !bracketed || strchr(target->name, '%');
}

/* ---- visitors --------------------------------------------------------- */

static void on_visitor(void *data, relay_agent *agent,
                       const relay_visitor_info *visitor) {
  struct expose *self = data;
  const struct target *target = &self->target;
  char preamble[PREAMBLE_MAX];
  int length = 0, err;

  if (self->proxy_version != 0)
    length = relay_proxy_header((int)self->proxy_version, visitor->from,
                                visitor->to, preamble, sizeof(preamble));
  if (length < 0)
    err = length;
  else if (target->address_length != 0)
    err = relay_agent_serve_address(
        agent, visitor->id, (const struct sockaddr *)&target->address,
        target->address_length, preamble, (size_t)length);
  else
    err = relay_agent_serve_name(agent, visitor->id,
                                 target->local ? NULL : target->name,
                                 target->port, preamble, (size_t)length);
  if (err != 0)
    (void)relay_agent_reject(agent, visitor->id, relay_strerror(err));
}

int main(int argc, char **argv) {
  static const char *const names[] = {"RELAYHOST", "RELAYPORT", "TARGET", NULL};
  const char *operands[3];
  struct expose self = {0};
  const struct cli_option table[] = {
      {"proxy-protocol", "VERSION", CLI_NUMBER, &self.proxy_version,
       "PROXY header before a visitor's bytes: 1 or 2", "none", 1, 2, NULL},
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};

  agent_cli_init(&self.base, "expose", on_visitor);
  self.base.options.data = &self.base;
  self.base.cli.operands = names;
  self.base.cli.tables[1] = table;
  self.base.cli.about =
      "Gets a public address from the relay at RELAYHOST:RELAYPORT, prints\n"
      "'established relay address: (HOST, PORT)', and forwards each visitor\n"
      "of it to TARGET: [HOST:]PORT or unix:PATH.";
  int status = agent_cli_parse(&self.base, argc, argv, operands);
  if (status != CLI_GO)
    return status;
  if (!read_target(operands[2], &self.target))
    return cli_usage(&self.base.cli,
                     "TARGET: '%s' is not [HOST:]PORT or unix:PATH",
                     operands[2]);
  if (self.base.options.name == NULL)
    self.base.options.name = operands[2];
  return agent_cli_run(&self.base);
}
