-- SPDX-License-Identifier: MIT
--
-- What agents prove to a relay with a certificate: a token, which is said to
-- nobody else, or a certificate of their own, or both.

local lu = require("luaunit")
local certs = require("certs")
local h = require("harness")
local keyed = require("keyed")
local policy = require("policy")
local tap = require("tap")

local T = { limit = 60 }

local make_tokens, start_relay = certs.tokens, certs.start_relay
local enter, refused = certs.enter, certs.refused

-- ---- a token inside ---------------------------------------------------------

function T.test_a_token_inside()
  local file, tokens = make_tokens({ "alice", "bob" })
  local relay, authority = start_relay({ "--tokens", file })
  local agent = enter(relay, { token = tokens.alice }, "--tls-ca",
    authority.path)
  relay:wait_log('address established [^\n]*proved="token alice"')
  h.echo(agent, 100000)
  -- The same token with its key, beside: it is the same owner, and another
  -- name is another address.
  local keys = enter(relay, { token = tokens.bob })
  local second = enter(relay, { token = tokens.alice }, "--name", "second")
  relay:wait_log('name=second [^\n]*proved="token alice"')
  for _, one in ipairs({ agent, keys, second }) do
    h.echo(one, 10000)
  end
  local third = enter(relay, { token = tokens.alice })
  lu.assertEquals(third.port, agent.port)
  agent.expect = 1 -- replaced
  h.wait_until("the first is replaced", function()
    return not agent:running()
  end)
  -- Revoked: gone, whichever way it came.
  third.expect, second.expect = 1, 1
  h.output_of({ h.program("relay"), "token", "revoke", "alice", "--tokens",
    file })
  relay:kill("HUP")
  h.wait_until("both are gone", function()
    return not third:running() and not second:running()
  end)
  h.echo(keys, 1000)
end

-- Typed with openssl: what the relay says to this LISTEN.
local function answer(relay, authority, words, ...)
  local hand = keyed.certified(relay, authority.path, ...):prove()
  hand:say("RELAY/1 LISTEN%s", words)
  local line = hand.process:wait_line("^[EO][RK].*$")
  if line:find("^ERR") then
    hand.process:wait()
  end
  return line, hand
end

function T.test_every_refusal_is_the_same()
  local file, tokens = make_tokens({ "alice", "revoked" })
  h.output_of({ h.program("relay"), "token", "revoke", "revoked", "--tokens",
    file })
  h.write_file(file, h.read_file(file) .. "expired key=" ..
    keyed.key_of(file, "alice") .. " expires=2020-01-01T00:00:00Z\n")
  local relay, authority, own = start_relay({ "--tokens", file,
    "--penalties", "off" })
  local secret = tokens.alice:match("%.(.*)$")
  local expected <const> =
    "ERR code=denied final=yes reason=the%20token%20was%20not%20accepted"
  local wrong = { "alice." .. tokens.revoked:match("%.(.*)$"), tokens.revoked,
    "nobody." .. secret, "expired." .. secret, "alice", "", "a.b" }
  for _, token in ipairs(wrong) do
    lu.assertEquals(answer(relay, authority, " token=" .. token), expected)
  end
  for _, reason in ipairs({ "wrong key", "token is revoked",
                            "unknown token", "token has expired",
                            "what it says is no token" }) do
    relay:wait_log(('connection refused from=%%S+ reason="%s"'):format(reason))
  end
  lu.assertStrMatches(answer(relay, authority, " token=" .. tokens.alice),
    "OK .* data=tls")
  lu.assertStrContains(answer(relay, authority, ""), "ERR code=denied")
  relay:wait_log('reason="no token"')
  for _, token in ipairs({ wrong[1], wrong[2], wrong[3] }) do
    lu.assertStrContains(refused(relay, { token = token }, "--tls-ca",
      authority.path), "relay refused: the token was not accepted")
  end
  -- A policy's no is no other.
  for _, says in ipairs({ "false, 'we know you'", "nil", "error('oh')",
                          "cred:verify(('0'):rep(64))",
                          "cred:verify('" .. keyed.key_of(file, "alice") ..
                          "') and false" }) do
    local script = policy.write(("return { auth = function(_, cred) " ..
      "return %s end }"):format(says))
    local strict = start_relay({ "--tokens", file, "--script", script,
      "--penalties", "off" }, own)
    lu.assertEquals(answer(strict, authority, " token=" .. tokens.alice),
      expected)
  end
end

-- A wrong one is a fault like any other; a right one is let in among them.
function T.test_wrong_tokens_are_answered_late()
  local file, tokens = make_tokens({ "alice" })
  local relay, authority = start_relay({ "--tokens", file, "--penalty",
    "50ms" })
  for _ = 1, 17 do
    local hand = keyed.certified(relay, authority.path):prove()
    hand:say("RELAY/1 LISTEN token=alice.%s", ("A"):rep(43))
    hand.process:wait()
  end
  relay:wait_log("too many faults: it gets no answer for a while")
  local agent = enter(relay, { token = tokens.alice }, "--tls-ca",
    authority.path)
  h.echo(agent, 1000)
  lu.assertStrContains(answer(relay, authority, " token=x"), "ERR code=denied")
end

-- Where it could be read, it is not taken, and agents never send it there.
function T.test_a_token_is_said_in_no_other_way()
  local file, tokens = make_tokens({ "alice", "bob" })
  local relay, authority = start_relay({ "--tokens", file,
    "--penalties", "off" })
  local socket = h.connect(relay)
  socket:send("RELAY/1 LISTEN token=" .. tokens.alice .. "\n")
  lu.assertEquals((socket:recv_all()),
    "ERR code=denied final=yes reason=it%20takes%20TLS%20only\n")
  socket:close()
  -- The key of one, and the token of another: the key counts.
  local bob = keyed.agent(relay, "bob", keyed.key_of(file, "bob"),
    "token=" .. tokens.alice)
  relay:wait_log('address established [^\n]*proved="token bob"')
  bob:say("BYE")
  -- To a relay that shows no certificate, or a wrong one, nothing is said.
  for _, other in ipairs({ h.start_relay(),
                           h.start_relay({ "--tokens", file }) }) do
    local wire = tap.open(other)
    local agent = h.start_echoserver(wire:port(), { wait = false,
      expect = "any", "--tls-ca", authority.path,
      env = { RELAY_TOKEN = tokens.alice } })
    wire:turn_until("it gives up for now", function()
      return agent:log():find("it did not answer in TLS with a certificate")
    end)
    lu.assertNil(wire:seen():find("alice", 1, true))
    agent:kill("INT")
    wire:turn_until("it is gone", function()
      return not agent:running()
    end)
    wire:close()
  end
end

-- Data connections of a session that was proven so are bound to it all the
-- same, and none comes with the certificate alone.
function T.test_an_agent_by_hand()
  local file, tokens = make_tokens({ "alice" })
  local relay, authority = start_relay({ "--tokens", file,
    "--penalties", "off" })
  local alice = keyed.certified(relay, authority.path):prove():listen(
    "token=" .. tokens.alice)
  lu.assertEquals(alice.ok.data, "tls")
  local visitor = h.connect(alice)
  local id = alice:hear().id
  local line = ("RELAY/1 ACCEPT session=%s id=%s"):format(alice.session, id)
  local stray = keyed.certified(relay, authority.path):prove()
  stray:say(line)
  lu.assertStrContains(stray.process:wait_line("^ERR .*"), "code=protocol")
  local plain = h.connect(relay)
  plain:send(line .. "\n")
  lu.assertEquals({ plain:recv_all() }, { "", "reset" })
  plain:close()
  local data = alice:accept(id)
  visitor:send("to the agent\n")
  data.process:wait_line("^to the agent$")
  data:say("to the visitor")
  lu.assertEquals(visitor:recv_line(), "to the visitor")
  visitor:close()
  relay:wait_log("visitor closed")
end

-- ---- agents' certificates ---------------------------------------------------

-- A relay that wants one, and what an agent is given for it.
local function start_mutual(...)
  local clients = certs.authority()
  local relay, authority = start_relay({ "--tls-client-ca", clients.path, ... })
  return relay, clients, function(own)
    return "--tls-ca", authority.path, "--tls-cert", own.cert, "--tls-key",
      own.key
  end, authority
end

function T.test_an_agent_is_its_certificate()
  local relay, clients, with = start_mutual()
  lu.assertNotStrContains(relay:log(), "open to anyone")
  local office = clients:sign("office", "DNS:office")
  local first = enter(relay, {}, with(office))
  relay:wait_log('address established [^\n]*proved="certificate office"')
  h.echo(first, 100000)
  -- Who it is stays when the certificate is renewed: the same address.
  local home = enter(relay, {}, with(clients:sign("home", "DNS:home")))
  local renewed = clients:sign("again", "DNS:office", 30, "/O=We/CN=office")
  local second = enter(relay, {}, with(renewed))
  lu.assertEquals(second.port, first.port)
  lu.assertNotEquals(home.port, first.port)
  lu.assertEquals({ first:wait() }, { "exit", 1 })
  lu.assertStrContains(first:log(), "replaced by a newer connection")
  h.echo(second, 1000)
  h.echo(home, 1000)
end

function T.test_an_agent_that_is_not_believed()
  local relay, clients, with, authority = start_mutual("--penalties", "off")
  local other = certs.authority()
  local not_accepted <const> =
    "relay not trusted: it did not accept our certificate"
  for _, case in ipairs({
    { other:sign("office", "DNS:x"), not_accepted,
      "unable to get local issuer certificate" },
    { { cert = other.path, key = other.key }, not_accepted,
      "self%-signed certificate" },
    { clients:sign("nameless", "DNS:x", 30, "/O=Us"),
      "relay refused: a certificate with a common name is needed",
      "its certificate has no proper common name" },
    { clients:sign("twice", "DNS:x", 30, "/CN=office/CN=home"),
      "relay refused: a certificate with a common name is needed",
      "its certificate has no proper common name" },
  }) do
    lu.assertStrContains(refused(relay, {}, with(case[1])), case[2])
    relay:wait_log(('connection refused [^\n]*reason="%s'):format(case[3]))
  end
  lu.assertStrContains(refused(relay, {}, "--tls-ca", authority.path),
    "relay not trusted: it wants a certificate of ours: give one")
  relay:wait_log('reason="it has no certificate"')
  lu.assertNotStrContains(relay:log(), "address established")
  -- An agent does not start with one that has expired; openssl does.
  local old = clients:sign("old", "DNS:x", -1)
  local hand = keyed.certified(relay, authority.path, "-cert", old.cert,
    "-key", old.key)
  hand.process:wait()
  relay:wait_log('reason="certificate has expired"')
end

function T.test_both_are_needed()
  local file, tokens = make_tokens({ "alice", "office" })
  local relay, clients, with, authority = start_mutual("--tokens", file,
    "--penalties", "off")
  local office = clients:sign("office", "DNS:office")
  local agent = enter(relay, { token = tokens.alice }, with(office))
  relay:wait_log('proved="token alice, certificate office"')
  h.echo(agent, 10000)
  -- A name in a certificate is not the id of a token.
  lu.assertStrContains(refused(relay, {}, with(office)),
    "relay refused: denied")
  relay:wait_log('connection refused [^\n]*reason="no token"')
  lu.assertStrContains(refused(relay, { token = "alice." .. ("A"):rep(43) },
    with(office)), "relay refused: the token was not accepted")
  lu.assertStrContains(refused(relay, { token = tokens.alice }, "--tls-ca",
    authority.path), "it wants a certificate of ours")
  -- The key of a token is not enough by itself.
  lu.assertStrContains(refused(relay, { token = tokens.office }),
    "relay refused: the token was not accepted")
  relay:wait_log('reason="a token alone: a certificate is needed"')
end

function T.test_a_policy_sees_it()
  local file, tokens = make_tokens({ "alice" })
  local script = policy.write([[return { auth = function(agent, cred)
    print("asked", cred.id, cred.kind, cred.certificate, cred:known(),
      cred.fingerprint)
    if cred.kind == "certificate" and cred.id == "home" then
      return false, "not from home"
    end
    return true, cred.id and "the " .. cred.id
  end }]])
  local clients = certs.authority()
  local office = clients:sign("office", "DNS:x")
  local relay, authority = start_relay({ "--script", script, "--tls-client-ca",
    clients.path })
  local function with(own)
    return "--tls-ca", authority.path, "--tls-cert", own.cert, "--tls-key",
      own.key
  end
  h.echo(enter(relay, {}, with(office)), 1000)
  local print_of = h.output_of({ "openssl", "x509", "-in", office.cert,
    "-noout", "-fingerprint", "-sha256" }):match("=(.*)\n"):gsub(":", "")
  relay:wait_log("asked office certificate office true " .. print_of:lower())
  lu.assertStrContains(refused(relay, {}, with(clients:sign("home", "DNS:x"))),
    "relay refused: denied by policy")
  relay:wait_log('agent refused [^\n]*reason="not from home"')
  -- With a tokens file a certificate is not enough, but for a policy.
  relay, authority = start_relay({ "--script", script, "--tls-client-ca",
    clients.path, "--tokens", file })
  h.echo(enter(relay, { token = tokens.alice }, with(office)), 1000)
  relay:wait_log("asked alice token office true %x+")
  h.echo(enter(relay, {}, with(office)), 1000)
  relay:wait_log("asked office certificate office false %x+")
  refused(relay, { token = tokens.alice })
  lu.assertEquals(policy.count(relay, "asked"), 2)
  relay = start_relay({ "--script", script, "--tokens", file })
  h.echo(enter(relay, { token = tokens.alice }), 1000)
  relay:wait_log("asked alice token nil true nil")
end

-- The key comes from elsewhere, late, and there is more to do after it.
function T.test_a_policy_that_waits()
  local file, tokens = make_tokens({ "alice", "bob" })
  local relay, authority = start_relay({ "--penalties", "off", "--script",
    policy.write(([[return { auth = function(agent, cred)
      relay.sleep(0.02)
      local proven = cred:verify("%s")
      print("proven", cred.id, proven)
      relay.sleep(0.02)
      return cred.id ~= "eve", "the " .. cred.id
    end }]]):format(keyed.key_of(file, "alice"))) })
  local agent = enter(relay, { token = tokens.alice }, "--tls-ca",
    authority.path)
  relay:wait_log('proven alice true')
  relay:wait_log('address established [^\n]*proved="token alice"')
  h.echo(agent, 1000)
  local words = refused(relay, { token = "alice." .. ("A"):rep(43) },
    "--tls-ca", authority.path)
  lu.assertStrContains(words, "the token was not accepted")
  relay:wait_log('connection refused [^\n]*reason="wrong key"')
  lu.assertEquals(refused(relay, { token = tokens.bob }, "--tls-ca",
    authority.path), words)
  lu.assertEquals(policy.count(relay, "proven"), 1)
  -- One that leaves while the hook waits is no longer there.
  local hand = keyed.certified(relay, authority.path):prove()
  hand:say("RELAY/1 LISTEN token=%s", tokens.alice)
  hand.process:kill("KILL")
  hand.process:wait()
  h.echo(agent, 1000)
end

return T
