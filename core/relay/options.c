/* SPDX-License-Identifier: MIT */
/*
 * The relay's options: what holds of those that were not given, what is wrong
 * with those that were, and a copy of them that the relay keeps.
 */
#include <netdb.h>
#include <string.h>

#include "relay/private.h"

void relay_options_init(relay_options *options, size_t size) {
  relay_options all = {
      .size = size,
      .mode = RELAY_MODE_AUTO,
      .max_agents = 4096,
      .max_leases_per_owner = 256,
      .max_visitors = 10000,
      .max_parked = 64,
      .max_pool = 64,
      .max_unproven = 1024,
      .handshake_ms = 5000,
      .hook_agent_ms = 5000,
      .hook_visitor_ms = 2000,
      .pairing_ms = 10000,
      .heartbeat_ms = 5000,
      .dead_ms = 14000,
      .grace_ms = 60000,
      .park_ms = 30000,
      .fin_timeout_ms = 60000,
      .drain_ms = 30000,
      .keepalive_idle_s = 60,
      .keepalive_interval_s = 10,
      .keepalive_count = 6,
      .log_level = RELAY_LOG_INFO,
      .penalty_ms = 2000,
      .penalty_half_life_ms = 60000,
      .workers = 0, /* measured: docs/internals.md, "Worker loops" */
  };

  memcpy(options, &all, size < sizeof(all) ? size : sizeof(all));
}

static int copy_option(char *to, size_t size, const char *from) {
  size_t length = from != NULL ? strlen(from) : 0;

  if (length >= size)
    return UV_EINVAL;
  if (length != 0)
    memcpy(to, from, length);
  to[length] = '\0';
  return 0;
}

/* No address, or what agents would not understand if they were told. */
static const char *find_fault_in_hosts(const relay_options *options) {
  struct sockaddr_storage address;
  char host[NI_MAXHOST];
  unsigned port = 0;

  if (options->listen_host != NULL && *options->listen_host != '\0' &&
      relay__address_parse_host(options->listen_host, 0, &address) != 0)
    return "listen_host";
  if (options->advertise != NULL && *options->advertise != '\0' &&
      !relay__address_is_host(options->advertise))
    return "advertise";
  if (options->dial != NULL && *options->dial != '\0' &&
      (relay__address_split(options->dial, host, sizeof(host), &port) != 0 ||
       port == 0 || !relay__address_is_host(host)))
    return "dial";
  return NULL;
}

static const char *find_fault(const relay_options *options) {
  const char *fault = find_fault_in_hosts(options);
  struct networks networks;

  if (fault != NULL)
    return fault;
  if (options->port > 65535)
    return "port";
  if (options->port_hi > 65535 || options->port_lo > options->port_hi)
    return "port_hi";
  if (options->heartbeat_ms == 0)
    return "heartbeat_ms";
  if (options->dead_ms <= options->heartbeat_ms)
    return "dead_ms";
  if (options->handshake_ms == 0)
    return "handshake_ms";
  /* The kernel's own bounds: refused here, or each connection would be. */
  if (options->keepalive_idle_s - 1 >= 32767)
    return "keepalive_idle_s";
  if (options->keepalive_interval_s - 1 >= 32767)
    return "keepalive_interval_s";
  if (options->keepalive_count - 1 >= 127)
    return "keepalive_count";
  if (options->workers > CREW_WORKERS_MAX)
    return "workers";
  if (options->proxy_from != NULL &&
      relay__networks_parse(options->proxy_from, &networks) != 0)
    return "proxy_from";
  if ((options->tls_cert == NULL) != (options->tls_key == NULL))
    return options->tls_cert == NULL ? "tls_cert" : "tls_key";
  if (options->tls_client_ca != NULL && options->tls_cert == NULL)
    return "tls_client_ca";
  return NULL;
}

/* What was given, over the defaults. False: it holds options that this library
   has never heard of. */
static bool merge_options(relay_options *options, const relay_options *given) {
  relay_options_init(options, sizeof(*options));
  if (given->size > sizeof(*options))
    return false;
  memcpy(options, given, given->size);
  return true;
}

const char *relay_options_fault(const relay_options *options) {
  relay_options all;

  return merge_options(&all, options) ? find_fault(&all) : "size";
}

int relay__options_take(struct relay *relay, const relay_options *given) {
  relay_options *options = &relay->options;
  int err;

  if (!merge_options(options, given) || find_fault(options) != NULL)
    return UV_EINVAL;
  err = copy_option(relay->listen_host, sizeof(relay->listen_host),
                    options->listen_host);
  if (err == 0)
    err = copy_option(relay->advertise, sizeof(relay->advertise),
                      options->advertise);
  if (err == 0)
    err = copy_option(relay->dial, sizeof(relay->dial), options->dial);
  if (err == 0 && options->proxy_from != NULL)
    err = relay__networks_parse(options->proxy_from, &relay->proxy_from);
  options->proxy_from = NULL; /* read, not kept */
  options->listen_host = relay->listen_host[0] ? relay->listen_host : NULL;
  if (err == 0)
    err = copy_option(relay->state, sizeof(relay->state), options->state);
  options->state = relay->state[0] ? relay->state : NULL;
  options->advertise = relay->advertise;
  options->dial = relay->dial;
  relay->logger.level = options->log_level;
  relay->logger.log = relay__policy_log;
  relay->logger.data = relay;
  return err;
}
