/* SPDX-License-Identifier: MIT */
/* See relay_settings.h. */
#include "relay_settings.h"

#include <string.h>

/* ---- the options ------------------------------------------------------ */

void settings_list_addresses(struct settings *settings, relay_options *o,
                             struct cli_option *table) {
  const struct cli_option address_options[] = {
      {"listen", "ADDR", CLI_TEXT, &o->listen_host,
       "address to listen on, a literal", "every one, IPv6 and IPv4", 0, 0,
       NULL},
      {"advertise", "HOST", CLI_TEXT, &o->advertise,
       "host that agents are told", "the name they dialed", 0, 0, NULL},
      {"ports", "LO-HI", CLI_PORTS, settings->ports, "public ports to hand out",
       "after PORT", 0, 0, NULL},
      {"dial", "HOST:PORT", CLI_TEXT, &o->dial,
       "where agents open data connections", "as for control", 0, 0, NULL},
      {"state", "DIR", CLI_TEXT, &o->state,
       "keeps addresses across a restart of the relay", "none", 0, 0, NULL},
      {"proxy-from", "CIDR,...", CLI_TEXT, &o->proxy_from,
       "balancers that send PROXY headers", "none", 0, 0, NULL},
      {"mode", "MODE", CLI_CHOICE, &settings->mode, "how bytes move", NULL, 0,
       0, "auto|splice|copy"},
      {"rcvbuf", "SIZE", CLI_SIZE, &settings->rcvbuf_bytes,
       "receive buffer of each connection", "the kernel's", 0, 1 << 30, NULL},
      {"workers", "N", CLI_NUMBER, &o->workers,
       "threads that move visitors' bytes", "none", 0, 64, NULL},
      {"rate-in", "SIZE", CLI_SIZE, &o->rate_in,
       "bytes per second from each visitor", "no limit", 0, 0, NULL},
      {"rate-out", "SIZE", CLI_SIZE, &o->rate_out,
       "bytes per second to each visitor", "no limit", 0, 0, NULL},
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};

  memcpy(table, address_options, sizeof(address_options));
}

void settings_list_caps(relay_options *o, struct cli_option *table) {
  const struct cli_option cap_options[] = {
      {"max-agents", "N", CLI_NUMBER, &o->max_agents, "agents at a time", NULL,
       1, 1000000, NULL},
      {"max-leases-per-owner", "N", CLI_NUMBER, &o->max_leases_per_owner,
       "addresses for one owner", NULL, 1, 1000000, NULL},
      {"max-visitors", "N", CLI_NUMBER, &o->max_visitors,
       "visitors of one address at a time", NULL, 1, 1000000, NULL},
      {"max-parked", "N", CLI_NUMBER, &o->max_parked,
       "visitors that wait while the agent is away", NULL, 0, 1000000, NULL},
      {"max-pool", "N", CLI_NUMBER, &o->max_pool,
       "idle data connections of one agent", NULL, 0, 1000000, NULL},
      {"max-fds", "N", CLI_NUMBER, &o->max_fds, "descriptors in all",
       "what the system allows", 0, 10000000, NULL},
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};

  memcpy(table, cap_options, sizeof(cap_options));
}

void settings_list_times(relay_options *o, struct cli_option *table) {
  const struct cli_option time_options[] = {
      {"handshake", "TIME", CLI_TIME, &o->handshake_ms,
       "for an agent to say what it wants", NULL, 0, 0, NULL},
      {"pairing", "TIME", CLI_TIME, &o->pairing_ms,
       "for an agent to take a visitor", NULL, 0, 0, NULL},
      {"heartbeat", "TIME", CLI_TIME, &o->heartbeat_ms, "between PINGs", NULL,
       0, 0, NULL},
      {"dead", "TIME", CLI_TIME, &o->dead_ms,
       "without a PONG: the agent is lost", NULL, 0, 0, NULL},
      {"grace", "TIME", CLI_TIME, &o->grace_ms,
       "an address is kept for a lost agent", NULL, 0, 0, NULL},
      {"park", "TIME", CLI_TIME, &o->park_ms,
       "a visitor waits for a lost agent", NULL, 0, 0, NULL},
      {"fin-timeout", "TIME", CLI_TIME, &o->fin_timeout_ms,
       "half-closed and silent: reset", "never", 0, 0, NULL},
      {"idle", "TIME", CLI_TIME, &o->idle_ms, "silent both ways: reset",
       "never", 0, 0, NULL},
      {"drain", "TIME", CLI_TIME, &o->drain_ms,
       "for visitors to finish after SIGTERM", NULL, 0, 0, NULL},
      {"keepalive", "SECONDS", CLI_NUMBER, &o->keepalive_idle_s,
       "of silence before a peer is asked", NULL, 1, 32767, NULL},
      {"keepalive-interval", "SECONDS", CLI_NUMBER, &o->keepalive_interval_s,
       "between two such questions", NULL, 1, 32767, NULL},
      {"keepalive-count", "N", CLI_NUMBER, &o->keepalive_count,
       "without an answer: reset", NULL, 1, 127, NULL},
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};

  memcpy(table, time_options, sizeof(time_options));
}

/* ---- what they may be ------------------------------------------------- */

/* Those that the library looks at; it names the first it does not take. */
static int check_values(const struct cli *cli, const relay_options *o) {
  const char *fault = relay_options_fault(o);

  if (fault != NULL && strcmp(fault, "listen_host") == 0)
    return cli_usage(cli, "--listen: '%s' is not an address", o->listen_host);
  if (fault != NULL && strcmp(fault, "advertise") == 0)
    return cli_usage(cli, "--advertise: '%s' is not a host", o->advertise);
  if (fault != NULL && strcmp(fault, "dial") == 0)
    return cli_usage(cli, "--dial: '%s' is not HOST:PORT", o->dial);
  if (fault != NULL && strcmp(fault, "proxy_from") == 0)
    return cli_usage(cli,
                     "--proxy-from: '%s' is not a list of networks "
                     "(192.0.2.0/24,2001:db8::/32)",
                     o->proxy_from);
  return CLI_GO;
}

static int check_times(const struct cli *cli, const relay_options *options) {
  if (options->handshake_ms == 0)
    return cli_usage(cli, "--handshake: it cannot be 0");
  if (options->heartbeat_ms == 0)
    return cli_usage(cli, "--heartbeat: it cannot be 0");
  if (options->heartbeat_ms >= options->dead_ms)
    return cli_usage(cli, "--heartbeat: it must be less than --dead");
  return CLI_GO;
}

int settings_take(const struct settings *settings, const struct cli *cli,
                  relay_options *options) {
  int status;

  options->port_lo = settings->ports[0];
  options->port_hi = settings->ports[1];
  options->mode = (relay_mode)settings->mode;
  options->rcvbuf_bytes = (unsigned)settings->rcvbuf_bytes;
  status = check_times(cli, options);
  if (status == CLI_GO)
    status = check_values(cli, options);
  return status;
}
