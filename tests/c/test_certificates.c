/* SPDX-License-Identifier: MIT */
/*
 * Certificates as a host has them: options that cannot be, files that cannot be
 * used, and two halves that know each other by nothing else.
 */
#include "host.h"
#include "tls_certs.h"

#include <sys/stat.h>

static struct tls_certs certs;
static char reason[256];
static char id[80], certificate[80], fingerprint[80];
static relay_credential_kind kind;
static uint64_t agent_id;

static void note_log(void *data, const relay_log_record *record) {
  (void)data;
  if (strncmp(record->event, "certificates", 12) == 0)
    snprintf(reason, sizeof(reason), "%s %s", record->event,
             record->fields[0].text);
}

static void open_host(struct host *h) {
  host_prepare(h);
  h->options.log = h->agent_options.log = note_log;
  h->options.tls_cert = h->options.tls_client_ca = certs.cert;
  h->options.tls_key = certs.key;
  h->agent_options.tls_cert = h->agent_options.tls_ca = certs.cert;
  h->agent_options.tls_key = certs.key;
  reason[0] = '\0';
}

TEST(options_that_cannot_be) {
  relay_options options;

  relay_options_init(&options, sizeof(options));
  options.tls_cert = "a";
  CHECK_STR("tls_key", relay_options_fault(&options));
  options.tls_key = "b";
  options.tls_client_ca = "c";
  CHECK(relay_options_fault(&options) == NULL);
  options.tls_cert = NULL;
  CHECK_STR("tls_cert", relay_options_fault(&options));
  options.tls_key = NULL;
  CHECK_STR("tls_client_ca", relay_options_fault(&options));
}

TEST(files_that_cannot_be_used_make_no_half) {
  struct host h;

  open_host(&h);
  h.options.tls_key = h.options.tls_cert;
  CHECK_INT(RELAY_ECERT, relay_new(&h.relay, &h.loop, &h.options));
  CHECK(strstr(reason, "certificates not read") != NULL);
  CHECK(strstr(reason, "cert.pem: there is no private key in it") != NULL);
  h.options.tls_key = certs.key;
  CHECK_INT(0, relay_new(&h.relay, &h.loop, &h.options));
  h.agent_options.port = relay_port(h.relay);
  reason[0] = '\0';
  h.agent_options.tls_ca = "/nowhere/at/all";
  CHECK_INT(RELAY_ECERT, relay_agent_new(&h.agent, &h.loop, &h.agent_options));
  CHECK(strstr(reason, "/nowhere/at/all: no such file") != NULL);
  h.agent_options.tls_ca = certs.cert;
  h.agent_options.tls_key = NULL;
  CHECK_INT(UV_EINVAL, relay_agent_new(&h.agent, &h.loop, &h.agent_options));
  h.agent_options.tls_key = certs.key;
  CHECK_INT(0, relay_agent_new(&h.agent, &h.loop, &h.agent_options));
  host_finish(&h);
}

static int auth(void *data, uint64_t call, const relay_agent_info *agent,
                const relay_credentials *credentials, relay_verdict *verdict) {
  struct host *h = data;

  h->auths++;
  agent_id = agent->id;
  h->call = call;
  kind = credentials->kind;
  CHECK_INT(1, credentials->known);
  snprintf(id, sizeof(id), "%s", credentials->id);
  snprintf(certificate, sizeof(certificate), "%s", credentials->certificate);
  snprintf(fingerprint, sizeof(fingerprint), "%s", credentials->fingerprint);
  *verdict = h->verdict;
  return 0;
}

/* Nothing is left to be proven: a yes is enough, and no key can be asked for.
 */
TEST(a_certificate_is_who_it_is) {
  static const unsigned char key[RELAY_KEY_SIZE];
  relay_verdict allow = {.size = sizeof(allow)};
  relay_agent_info info = {.size = sizeof(info)};
  struct host h;

  open_host(&h);
  h.policy.auth = auth;
  h.verdict.answer = RELAY_DEFER;
  h.options.hook_agent_ms = 60000;
  host_start(&h);
  UNTIL(&h, h.auths == 1);
  CHECK_INT(RELAY_CREDENTIAL_CERTIFICATE, kind);
  CHECK_STR("test", id);
  CHECK_STR("test", certificate);
  CHECK_INT(64, strlen(fingerprint));
  CHECK_INT(UV_ENOENT, relay_verify(h.relay, h.call, key, sizeof(key)));
  CHECK_INT(0, relay_settle(h.relay, h.call, &allow));
  UNTIL(&h, h.established == 1);
  host_visit(&h, h.port);
  CHECK_INT(0, relay_get_agent(h.relay, agent_id, &info));
  CHECK_STR("test", info.owner);
  host_finish(&h);
}

/* A host from before there were any, and an agent beside it. */
TEST(reading_again_what_is_not_there) {
  char error[128] = "";
  struct host h;

  host_prepare(&h);
  host_start(&h);
  CHECK_INT(UV_EINVAL,
            relay_reload_certificates(h.relay, error, sizeof(error)));
  CHECK_STR("there are no certificates", error);
  CHECK_INT(UV_EINVAL, relay_reload_certificates(h.relay, NULL, 0));
  host_finish(&h);
}

TEST(reading_again) {
  char error[128] = "";
  struct host h;

  open_host(&h);
  host_start(&h);
  UNTIL(&h, h.established == 1);
  CHECK_INT(0, relay_reload_certificates(h.relay, error, sizeof(error)));
  CHECK(strstr(reason, "certificates read") != NULL);
  chmod(certs.key, 0644);
  CHECK_INT(RELAY_ECERT,
            relay_reload_certificates(h.relay, error, sizeof(error)));
  CHECK(strstr(error, "key.pem: its mode is 0644") != NULL);
  CHECK(strstr(reason, "certificates stay as they were") != NULL);
  chmod(certs.key, 0600);
  host_visit(&h, h.port);
  host_finish(&h);
}

int main(void) {
  if (!CHECK(tls_certs_open(&certs)))
    return check_report();
  RUN(options_that_cannot_be);
  RUN(files_that_cannot_be_used_make_no_half);
  RUN(a_certificate_is_who_it_is);
  RUN(reading_again_what_is_not_there);
  RUN(reading_again);
  tls_certs_close(&certs);
  return check_report();
}
