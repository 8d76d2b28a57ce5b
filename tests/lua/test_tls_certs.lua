-- SPDX-License-Identifier: MIT
--
-- Certificates, the other way of TLS: the relay shows one, and is believed for
-- it or not; nobody listens in; files that are good and bad.

local lu = require("luaunit")
local certs = require("certs")
local h = require("harness")
local keyed = require("keyed")
local scene = require("scene")
local tap = require("tap")
local sys = h.sys

local T = { limit = 60 }

local NAMES <const> = certs.NAMES
local make_tokens, start_relay = certs.tokens, certs.start_relay
local enter, refused = certs.enter, certs.refused

-- ---- the relay's ------------------------------------------------------------

function T.test_a_relay_that_is_believed()
  local relay, authority = start_relay()
  local agent = enter(relay, {}, "--tls-ca", authority.path)
  relay:wait_log("address established [^\n]*proved=nothing")
  h.echo(agent, 100000)
  agent = enter(relay, { host = "127.0.0.1" }, "--tls-ca", authority.path)
  h.echo(agent, 1000)
  -- Its name is another here, and the token is not needed.
  agent = enter(relay, { token = "a." .. ("A"):rep(43) }, "--tls-ca",
    authority.path, "--tls-name", "127.0.0.1", "--pool", 0)
  h.echo(agent, 1000)
  lu.assertNotStrContains(relay:log(), "refused")
end

-- What a name in a certificate stands for.
function T.test_whose_certificate_it_is()
  local authority = certs.authority()
  local relay = start_relay({}, authority:sign("relay",
    "DNS:*.example.org,DNS:localhost"))
  for name, is_its in pairs({ ["a.example.org"] = true, ["localhost."] = true,
                              ["A.EXAMPLE.org"] = true, ["example.org"] = false,
                              ["a.b.example.org"] = false, ["*.org"] = false,
                              ["127.0.0.1"] = false, ["::1"] = false }) do
    local words = { "--tls-ca", authority.path, "--tls-name", name }
    if is_its then
      enter(relay, {}, table.unpack(words)):stop()
    else
      lu.assertStrContains(refused(relay, {}, table.unpack(words)),
        "name mismatch: it is not for " .. name)
    end
  end
end

-- The very certificate in place of its authority.
function T.test_a_certificate_that_is_known_itself()
  local relay, _, own = start_relay()
  h.echo(enter(relay, {}, "--tls-ca", own.cert), 1000)
end

function T.test_a_relay_that_is_not_believed()
  local authority, other = certs.authority(), certs.authority()
  local self_signed = { cert = authority.path, key = authority.key }
  local failed <const> = "relay not trusted: certificate verify failed: "
  for _, case in ipairs({
    { self_signed, "self-signed certificate: give the authority" },
    { authority:sign("a", NAMES), "--tls-ca", other.path,
      "unable to get local issuer certificate: give the authority" },
    { authority:sign("b", NAMES), "unable to get local issuer certificate" },
    { authority:sign("c", "DNS:example.org"), "--tls-ca", authority.path,
      "name mismatch: it is not for localhost; say" },
    { authority:sign("d", NAMES), "--tls-ca", authority.path, "--tls-name",
      "example.org", "name mismatch: it is not for example.org; say" },
    { authority:sign("e", "DNS:localhost"), "--tls-ca", authority.path,
      "name mismatch: it is not for 127.0.0.1; say", host = "127.0.0.1" },
  }) do
    local own, words = case[1], table.remove(case)
    local relay = start_relay({}, own)
    lu.assertStrContains(refused(relay, { host = case.host },
      case[2] or "--tls", table.unpack(case, 3)), failed .. words)
    relay:wait_log('connection refused [^\n]*reason="it does not believe ' ..
      'the relay\'s certificate"')
    lu.assertNotStrContains(relay:log(), "address established")
  end
end

-- No relay starts with one that has expired; this is another server.
function T.test_a_relay_whose_certificate_has_expired()
  local authority = certs.authority()
  local old = authority:sign("old", NAMES, -1)
  local port = require("real").free_port()
  local server = h.start({ "openssl", "s_server", "-accept",
    "127.0.0.1:" .. port, "-cert", old.cert, "-key", old.key, stdin = "pipe" })
  server:wait_line("ACCEPT")
  local words = refused(port, { host = "127.0.0.1" }, "--tls-ca",
    authority.path)
  lu.assertStrContains(words, "certificate verify failed: certificate has " ..
    "expired: the relay needs a new one")
end

-- ---- the wire ---------------------------------------------------------------

local marker <const> = "the words that nobody else may read. "

function T.test_nothing_is_readable_on_the_wire()
  local file, tokens = make_tokens({ "alice" })
  local relay, authority = start_relay({ "--tokens", file })
  for pool = 0, 2, 2 do
    local wire, listener = tap.open(relay), assert(sys.listen())
    local agent = h.start_expose(wire:port(), listener, { wait = false,
      "--tls-ca", authority.path, "--pool", pool, "--name", "named",
      expect = "any", env = { RELAY_TOKEN = tokens.alice } })
    wire:await_address(agent)
    local visitor = h.connect(agent)
    visitor:send(marker:rep(100))
    local served = wire:turn_until("the visitor is served", function()
      return listener:accept(0)
    end)
    local got = ""
    wire:turn_until("all of it", function()
      got = got .. (served:recv(0) or "")
      return #got >= 100 * #marker
    end)
    for _, text in ipairs({ marker:sub(1, 8), tokens.alice:match("%.(.*)"),
                            keyed.key_of(file, "alice"), "alice", "RELAY/1",
                            "LISTEN", "OK ", "session", "resume", "VISITOR",
                            "ACCEPT", "token", "named" }) do
      -- The identity of a data connection is readable, and names no secret.
      lu.assertNil(wire:seen():find(text, 1, true), "seen: " .. text)
    end
    lu.assertTrue(#wire.sent >= 2)
    for _, sent in ipairs(wire.sent) do
      lu.assertEquals(sent:sub(1, 2), "\x16\x03")
    end
    agent:kill("INT")
    wire:turn_until("it is gone", function()
      return not agent:running()
    end)
    visitor:close()
    served:close()
    wire:close()
  end
end

-- A few of what test_stream asks of the other modes.
local through_it = { modes = { "certs" } }

scene.each(T, "test_both_ways_at_once", through_it, function(s)
  local visitor, served = s:join()
  h.exchange(visitor, served, (4 << 20) + 1)
end)

scene.each(T, "test_an_end_of_one_direction", through_it, function(s)
  local visitor, served = s:join()
  visitor:send("all there is")
  visitor:shutdown()
  lu.assertEquals({ served:recv_all() }, { "all there is", "eof" })
  served:send("an answer after that")
  served:shutdown()
  lu.assertEquals({ visitor:recv_all() }, { "an answer after that", "eof" })
end)

scene.each(T, "test_a_reset_is_a_reset",
  { modes = through_it.modes, variants = scene.both_sides },
  function(s, who)
    local first, last = s:joined_from(who)
    first:send("before it")
    lu.assertEquals(last:recv_exact(9), "before it")
    first:reset()
    scene.expect_reset(last)
  end)

-- ---- changed while it runs --------------------------------------------------

local function copy_to(own, from)
  h.write_file(own.cert, h.read_file(from.cert))
  h.write_file(own.key, h.read_file(from.key))
end

function T.test_they_are_read_again()
  local relay, authority, own = start_relay()
  local first = enter(relay, {}, "--tls-ca", authority.path)
  local other = certs.authority()
  copy_to(own, other:sign("relay", NAMES))
  relay:kill("HUP")
  relay:wait_log("info certificates read file=" .. own.cert:gsub("%-", "%%-"))
  h.echo(enter(relay, {}, "--tls-ca", other.path), 1000)
  lu.assertStrContains(refused(relay, {}, "--tls-ca", authority.path),
    "certificate verify failed")
  h.echo(first, 10000) -- it notices nothing
  local cert, key = h.read_file(own.cert), h.read_file(own.key)
  local old = other:sign("old", NAMES, -1)
  for reason, bad in pairs({
    ["there is no certificate in it"] = "no certificate at all",
    ["it is not the key of the certificate"] = h.read_file(authority.path),
    ["it has expired on"] = h.read_file(old.cert),
  }) do
    h.write_file(own.cert, bad)
    if reason:find("expired") then
      h.write_file(own.key, h.read_file(old.key))
    end
    relay:kill("HUP")
    relay:wait_log("error certificates stay as they were [^\n]*" .. reason)
    h.write_file(own.cert, cert)
    h.write_file(own.key, key)
  end
  h.echo(enter(relay, {}, "--tls-ca", other.path), 1000)
end

-- An agent that has an address goes on trying, and looks again itself.
function T.test_an_agent_reads_its_own_again()
  local relay, authority = start_relay()
  local believed = h.write_file(h.tmpdir() .. "/ca.pem",
    h.read_file(authority.path))
  local agent = enter(relay, {}, "--tls-ca", believed, "--backoff-max",
    "300ms", "--port", require("real").free_port())
  local port, other = relay.port, certs.authority()
  relay:stop()
  local own = other:sign("relay", NAMES)
  h.start_relay({ port = port, "--tls-cert", own.cert, "--tls-key", own.key })
  agent:wait_log("certificate verify failed")
  h.write_file(believed, h.read_file(other.path))
  local before = agent.port
  agent:wait_address()
  lu.assertEquals(agent.port, before)
  h.echo(agent, 1000)
end

-- ---- the command line -------------------------------------------------------

local function says(status, words, ...)
  local result = h.run({ h.program(...), select(2, ...) })
  lu.assertEquals({ result.status, result.stdout }, { status, "" })
  lu.assertStrMatches(result.stderr:match("[^\n]*"), ".*" .. words .. ".*")
end

function T.test_files_that_cannot_be_used()
  local authority = certs.authority()
  local good, other = authority:sign("a", NAMES), authority:sign("b", NAMES)
  local old = authority:sign("old", NAMES, -1)
  local dir = h.tmpdir()
  local text = h.write_file(dir .. "/text", "hello\n")
  h.output_of({ "chmod", "600", text })
  local open = h.write_file(dir .. "/open.key", h.read_file(good.key))
  h.output_of({ "chmod", "644", open })
  local locked = dir .. "/locked.key"
  h.output_of({ "openssl", "pkcs8", "-topk8", "-in", good.key, "-out", locked,
    "-passout", "pass:secret" })
  h.output_of({ "chmod", "600", locked })
  for _, case in ipairs({
    { dir .. "/none.pem", good.key, "none.pem: no such file" },
    { good.cert, dir .. "/none.key", "none.key: no such file" },
    { dir, good.key, ": it is not a file" },
    { text, good.key, "text: there is no certificate in it" },
    { good.cert, text, "text: there is no private key in it" },
    { good.cert, other.key, "b.key: it is not the key of the certificate" },
    { good.cert, open, "open.key: its mode is 0644" },
    { good.cert, locked, "locked.key: it is encrypted" },
    { old.cert, old.key, "old.pem: it has expired on %d%d%d%d%-%d%d%-%d%d" },
  }) do
    says(1, case[3], "relay", "0", "--tls-cert", case[1], "--tls-key",
      case[2])
    says(1, case[3], "echoserver", "localhost", "1", "--tls-cert", case[1],
      "--tls-key", case[2])
  end
  -- One that its peers would refuse for what it may be used.
  for use, other_use in pairs({ serverAuth = "client", clientAuth = "server" })
  do
    local own = authority:sign(use, NAMES .. "\nextendedKeyUsage=" .. use)
    local program = other_use == "server" and { "relay", "0" } or
      { "echoserver", "localhost", "1" }
    table.move({ "--tls-cert", own.cert, "--tls-key", own.key }, 1, 4,
      #program + 1, program)
    says(1, use .. ".pem: its key usage does not let it be a " .. other_use ..
      "'s", table.unpack(program))
  end
  says(1, "text: there is no certificate in it", "relay", "0", "--tls-cert",
    good.cert, "--tls-key", good.key, "--tls-client-ca", text)
  says(1, "text: there is no certificate in it", "echoserver", "localhost",
    "1", "--tls-ca", text)
  for _, words in ipairs({ "cert", "key" }) do
    says(2, "tls%-" .. words .. " needs", "relay", "0", "--tls-" .. words,
      good.cert)
    says(2, "tls%-" .. words .. " needs", "echoserver", "localhost", "1",
      "--tls-" .. words, good.cert)
  end
  says(2, "tls%-client%-ca needs", "relay", "0", "--tls-client-ca",
    authority.path)
end

return T
