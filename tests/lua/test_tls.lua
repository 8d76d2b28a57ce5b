-- SPDX-License-Identifier: MIT
--
-- What tokens are for, through the programs: nobody listens in, nobody gets in,
-- nobody takes what is another's.

local lu = require("luaunit")
local h = require("harness")
local keyed = require("keyed")
local real = require("real")
local scene = require("scene")
local tap = require("tap")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

local make_tokens = keyed.make_tokens

local function secret_of(token)
  return token:match("%.(.*)$")
end

local function start_expose(port, listener, token, ...)
  return h.start_expose(port, listener, { "--pool", 0, wait = false,
    expect = "any", env = { RELAY_TOKEN = token }, ... })
end

-- Both ends of a connection through it, joined all the way.
local function join(agent, listener)
  local visitor, served = h.join(agent, listener)
  visitor:send("x")
  lu.assertEquals(served:recv(), "x")
  return visitor, served
end

-- ---- on the wire ------------------------------------------------------------

local marker <const> = "the words that nobody else may read. "

-- A visitor and a service behind an agent that the tap lies before: both say
-- the marker, and both end.
local function carry(wire, agent, listener)
  local visitor = h.connect(agent)
  visitor:send(marker:rep(100))
  local served = wire:turn_until("the visitor is served", function()
    return listener:accept(0)
  end)
  served:send(marker:rep(200))
  served:shutdown()
  visitor:shutdown()
  local got = { [visitor] = "", [served] = "" }
  for socket, count in pairs({ [visitor] = 200, [served] = 100 }) do
    wire:turn_until("all of it", function()
      got[socket] = got[socket] .. (socket:recv(0) or "")
      return #got[socket] >= count * #marker
    end)
    lu.assertEquals(got[socket], marker:rep(count))
  end
  visitor:close()
  served:close()
end

local function open_wire(relay, token, ...)
  local wire = tap.open(relay)
  local listener = assert(sys.listen())
  local agent = start_expose(wire:port(), listener, token, ...)
  wire:await_address(agent)
  return wire, agent, listener
end

local function expect_unseen(wire, ...)
  for _, text in ipairs({ ... }) do
    lu.assertNil(wire:seen():find(text, 1, true), "seen: " .. text)
  end
end

function T.test_nothing_is_readable_on_the_wire()
  local file, tokens = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file })
  for pool = 0, 2, 2 do
    local wire, agent, listener = open_wire(relay, tokens.alice, "--pool", pool,
      "--name", "named")
    carry(wire, agent, listener)
    wire:turn_until("three connections at least", function()
      return #wire.sent >= 2
    end)
    expect_unseen(wire, marker:sub(1, 8), secret_of(tokens.alice),
      keyed.key_of(file, "alice"), "RELAY/1", "LISTEN", "OK ", "session",
      "resume", "VISITOR", "ACCEPT", "named")
    for _, sent in ipairs(wire.sent) do
      lu.assertEquals(sent:sub(1, 2), "\x16\x03")
    end
    agent:kill("INT")
    wire:turn_until("it is gone", function()
      return not agent:running()
    end)
    wire:close()
  end
end

-- Whether a text is anywhere in the memory that a process may write to.
local function is_in_memory(pid, text)
  local memory = assert(io.open(("/proc/%d/mem"):format(pid), "rb"))
  local found = false
  for line in io.lines(("/proc/%d/maps"):format(pid)) do
    local from, to = line:match("^(%x+)%-(%x+) rw")
    if from and tonumber(to, 16) - tonumber(from, 16) < 1 << 28 and
        memory:seek("set", tonumber(from, 16)) then
      local bytes = memory:read(tonumber(to, 16) - tonumber(from, 16))
      found = found or bytes and bytes:find(text, 1, true) ~= nil
    end
  end
  memory:close()
  return found
end

-- An agent keeps what it derives from its token, and nothing of the token. (A
-- sanitizer keeps what was freed.)
T.test_an_agent_forgets_the_token_itself = not h.sanitized and function()
  local file, tokens = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file })
  local listener = assert(sys.listen())
  local of_file = h.write_file(h.tmpdir() .. "/token", tokens.alice .. "\n")
  local agents = { start_expose(relay.port, listener, tokens.alice),
    start_expose(relay.port, listener, nil, "--token-file", of_file, "--name",
      "other") }
  for _, agent in ipairs(agents) do
    agent:wait_line("established")
    lu.assertTrue(is_in_memory(agent:pid(), "--pool")) -- it does find things
    lu.assertFalse(is_in_memory(agent:pid(), secret_of(tokens.alice)))
  end
end or nil

-- Asked for by both: then the payload is, and nothing that proves anything.
function T.test_plain_data_gives_away_no_key()
  local file, tokens = make_tokens({ "alice" }, "--plain")
  local relay = h.start_relay({ "--tokens", file, "--allow-plain" })
  local wire, agent, listener = open_wire(relay, tokens.alice,
    "--data", "plain")
  carry(wire, agent, listener)
  lu.assertNotNil(wire:seen():find(marker, 1, true))
  lu.assertStrMatches(wire.sent[2]:match("[^\n]*"),
    "RELAY/1 ACCEPT session=%x+ id=%x+ mac=[%w_-]+")
  expect_unseen(wire, secret_of(tokens.alice), keyed.key_of(file, "alice"),
    "LISTEN", "resume")
  wire:close()
end

-- One of the three does not want that.
function T.test_plain_data_has_to_be_granted()
  local file, tokens = make_tokens({ "alice" }, "--plain")
  local strict, strict_tokens = make_tokens({ "alice" })
  for _, case in ipairs({
    { { "--tokens", file }, tokens, "plain" },
    { { "--tokens", strict, "--allow-plain" }, strict_tokens, "plain" },
    { { "--tokens", file, "--allow-plain" }, tokens, "tls" },
  }) do
    local relay = h.start_relay(case[1])
    local wire, agent, listener = open_wire(relay, case[2].alice,
      "--data", case[3])
    carry(wire, agent, listener)
    expect_unseen(wire, marker:sub(1, 8), "ACCEPT")
    wire:close()
  end
end

-- ---- refusals ---------------------------------------------------------------

function T.test_tls_to_a_plain_port()
  local _, tokens = make_tokens({ "alice" })
  local relay = h.start_relay()
  local agent = h.start_echoserver(relay, { wait = false, expect = "any",
    env = { RELAY_TOKEN = tokens.alice } })
  agent:wait_log('relay not reachable [^\n]*reason="it did not answer in ' ..
    'TLS, which a token needs"')
  relay:wait_log('connection refused [^\n]*reason="a TLS handshake"')
  lu.assertNotStrContains(relay:log(), "address established")
  lu.assertEquals(agent:text(), "")
end

function T.test_plain_to_a_tls_port()
  local file = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file })
  local agent = h.start_echoserver(relay, { wait = false, expect = 1 })
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  lu.assertStrContains(agent:log(), "relay refused: denied by policy")
  local visitor = h.connect(relay)
  visitor:send("GET / HTTP/1.1\r\n\r\n")
  visitor:recv_all()
  visitor:close()
  relay:wait_log('reason="an HTTP request"')
end

-- Clients that speak TLS and nothing of ours.
function T.test_other_tls_clients()
  h.need("openssl")
  local file = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file, "--penalties", "off" })
  local key = keyed.key_of(file, "alice")
  local function fails(...)
    local result = h.run({ stdin = "null", "openssl", "s_client", "-connect",
      "127.0.0.1:" .. relay.port, "-brief", ... })
    lu.assertStrContains(result.stderr, "alert")
    lu.assertNotStrContains(result.stderr, "CONNECTION ESTABLISHED")
  end
  fails()
  fails("-tls1_2")
  fails("-tls1_3", "-psk_identity", "t/alice", "-psk", key, "-groups", "P-256")
  fails("-tls1_3", "-psk_identity", "alice", "-psk", key)
  fails("-tls1_3", "-psk_identity", "t/alice", "-psk", key, "-ciphersuites",
    "TLS_CHACHA20_POLY1305_SHA256")
  relay:wait_log('reason="a TLS handshake that names no key of ours"')
  relay:wait_log('reason="a TLS handshake that is not ours"')
  keyed.agent(relay, "alice", key)
end

-- The first bytes an agent with this token sends.
local function hello_of(token)
  local listener = assert(sys.listen())
  local agent = h.start_echoserver(listener:port(), { wait = false,
    expect = "any", env = { RELAY_TOKEN = token } })
  local socket = assert(listener:accept())
  local hello = socket:recv()
  agent:kill("KILL")
  socket:close()
  listener:close()
  return hello
end

-- What is no ClientHello, or not yet one, costs next to nothing, and no work.
function T.test_what_only_begins_like_tls()
  local file = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file, "--penalties", "off",
    "--handshake", "60s" })
  local function open(bytes, count)
    local sockets = {}
    for i = 1, count do
      sockets[i] = h.connect(relay)
      sockets[i]:send(bytes)
    end
    return sockets
  end
  for _, bytes in ipairs({ "\22garbage", "\22\2\1\0\5\1", "\22\3\1\0\5\2" }) do
    local socket = open(bytes .. "\n", 1)[1]
    lu.assertStrMatches(socket:recv_all(), "ERR code=protocol .*")
    socket:close()
  end
  local ended = open("\22\3\1", 1)[1]
  ended:shutdown()
  lu.assertStrMatches(ended:recv_all(), "ERR code=protocol .*")
  ended:close()
  -- Half a beginning, and it waits; what it waits for still counts.
  local idle = open("\22", 100)
  local before = relay:usage()
  local begun = open("\22\3\1\0", 400)
  sys.sleep(0.5)
  local after = relay:usage()
  lu.assertTrue(after.cpu - before.cpu < 0.4, "it spins")
  if not h.sanitized then
    lu.assertTrue(after.rss - before.rss <= 400 * 4096, "memory")
  end
  for _, sockets in ipairs({ idle, begun }) do
    for _, socket in ipairs(sockets) do
      socket:reset()
      socket:close()
    end
  end
end

-- One clock for all of it, and one byte is no reason to wait longer.
function T.test_a_slow_handshake_is_cut()
  local file, tokens = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file, "--penalties", "off",
    "--handshake", "700ms" })
  local hello, slow = hello_of(tokens.alice), {}
  local began, sent = sys.now(), 0
  for i = 1, 50 do
    slow[i] = h.connect(relay)
  end
  repeat
    sent = sent + 1
    for _, socket in ipairs(slow) do
      socket:try_send(hello:sub(sent, sent))
    end
    sys.sleep(0.05)
  until #sys.poll(slow, "r", 0) == #slow or sent == #hello
  lu.assertTrue(sys.now() - began >= 0.65, "cut early")
  lu.assertTrue(sent < #hello, "never cut")
  for _, socket in ipairs(slow) do
    lu.assertEquals((socket:recv_all()), "")
    socket:close()
  end
  relay:wait_log('reason="its TLS handshake did not end in time"')
end

-- Whoever tries keys waits for each answer, here for as good as ever; behind
-- the same address somebody who has one does not.
function T.test_a_proven_key_is_let_in_among_wrong_ones()
  local file, tokens = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file, "--penalty", "10h",
    "--handshake", "10h", "--penalty-half-life", 0 })
  local hello = hello_of("alice." .. ("A"):rep(43))
  local function ask()
    local socket = h.connect(relay)
    socket:send(hello)
    return socket
  end
  local function try()
    local socket = ask()
    local answer, how = socket:recv_all()
    socket:close()
    return #answer, how
  end
  for _ = 1, 4 do
    lu.assertEquals(try(), 7) -- an alert
  end
  local waiting = {}
  h.wait_until("there is no answer at all", function()
    table.insert(waiting, ask())
    return relay:log():find("it gets no answer for a while", 1, true)
  end)
  lu.assertEquals({ try() }, { 0, "reset" })
  lu.assertEquals(#sys.poll({ waiting[1] }, "r", 0), 0)
  local agent = h.start_echoserver(relay,
    { env = { RELAY_TOKEN = tokens.alice } })
  h.echo(agent, 10000)
  lu.assertEquals(#sys.poll({ waiting[1] }, "r", 0), 0)
  -- And with that the address is no suspect any more.
  lu.assertEquals(try(), 7)
  for _, socket in ipairs(waiting) do
    socket:close()
  end
end

-- More visitors at once than the relay bears strangers: their data connections
-- take turns. (To the relay, one is a stranger a little longer than to itself.)
function T.test_a_crowd_takes_turns()
  local file, tokens = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file, "--max-unproven", 200,
    "--max-unproven-per-source", 150 })
  local agent = h.start_echoserver(relay, { "--pool", 0,
    env = { RELAY_TOKEN = tokens.alice } })
  local ends = {}
  for i = 1, 400 do
    ends[i] = { h.connect(agent), send = 1000 + i, recv = 1000 + i,
      fin = true, eof = true }
  end
  h.pump(ends)
  for _, one in ipairs(ends) do
    one[1]:close()
  end
  lu.assertNotStrContains(relay:log(), "refused")
end

-- ---- what is another's ------------------------------------------------------

-- A relay with two agents of their own tokens.
local function two_agents(options, ...)
  local file = make_tokens({ "alice", "bob" }, ...)
  local relay = h.start_relay({ "--tokens", file, "--penalties", "off",
    table.unpack(options or {}) })
  return relay,
    keyed.agent(relay, "alice", keyed.key_of(file, "alice"),
      "data=plain pool=" .. (options and options.pool or 0)),
    keyed.agent(relay, "bob", keyed.key_of(file, "bob"))
end

local function refused_plainly(relay, line)
  local socket = h.connect(relay)
  socket:send(line .. "\n")
  local answer, how = socket:recv_all()
  socket:close()
  lu.assertEquals({ answer, how }, { "", "reset" })
end

-- A byte each way between a visitor and its data connection.
local function expect_joined(visitor, data)
  visitor:send("to the agent\n")
  data.process:wait_line("^to the agent$")
  data:say("to the visitor")
  lu.assertEquals(visitor:recv_line(), "to the visitor")
end

-- A key is no licence to hold connections: those that go no further are as many
-- as those that have proven nothing, and the oldest gives way.
function T.test_proven_and_silent_ones_give_way()
  local file = make_tokens({ "alice" })
  local key = keyed.key_of(file, "alice")
  local relay = h.start_relay({ "--tokens", file, "--max-unproven", 2,
    "--handshake", "1m" })
  local silent = {}
  for i = 1, 3 do
    silent[i] = keyed.connect(relay, "t/alice", key):prove()
  end
  silent[1].process:wait()
  relay:wait_log('reason="too many proved a key and said nothing"')
  for i = 2, 3 do
    silent[i]:say("RELAY/1 LISTEN name=%d", i)
    lu.assertEquals(silent[i]:hear().verb, "OK")
  end
end

function T.test_an_agent_by_hand()
  local relay, alice = two_agents()
  lu.assertEquals(alice.ok.data, "tls")
  local visitor = h.connect(alice)
  local data = alice:accept(alice:hear().id)
  expect_joined(visitor, data)
  visitor:close()
  relay:wait_log("visitor closed")
end

-- What docs/protocol.md says to type, with a token and nothing else.
function T.test_an_agent_by_hand_as_documented()
  h.need("openssl", "base64", "od")
  local file, tokens = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file })
  local page = h.read_file(h.source .. "docs/protocol.md")
  local script = page:match("### An agent by hand, with a token\n.-```sh\n" ..
    "(.-)```"):gsub("localhost:8080", "127.0.0.1:" .. relay.port)
  local hand = h.start({ "sh", "-c", script, stdin = "pipe",
    env = { ID = "alice", SECRET = secret_of(tokens.alice) } })
  hand:wait_line("Keying material: %x+")
  hand:write("RELAY/1 LISTEN\n")
  lu.assertStrContains(hand:wait_line("^OK .*$"), "data=tls")
  hand:write("BYE\n")
  hand:wait()
end

function T.test_a_stolen_id_is_worth_nothing()
  local relay, alice, bob = two_agents()
  local visitor = h.connect(alice)
  local id = alice:hear().id
  -- By another agent, that knows the id and even the session.
  bob:data("v/" .. id):fail()
  bob:data("t/bob"):fail() -- what it proves for data is no token's key
  refused_plainly(relay, ("RELAY/1 ACCEPT session=%s id=%s"):format(
    alice.session, id))
  refused_plainly(relay, ("RELAY/1 ACCEPT session=%s id=%s mac=%s"):format(
    alice.session, id, keyed.base64url(keyed.hmac(bob.key,
      ("ACCEPT %s %s"):format(alice.session, id)))))
  -- With a right key for something else.
  local crossed = alice:data("w/" .. alice.session .. "/1"):prove()
  crossed:say("RELAY/1 ACCEPT session=%s id=%s", alice.session, id)
  lu.assertStrContains(crossed.process:wait_line("^ERR .*"), "code=protocol")
  local second = h.connect(alice)
  local other = alice:hear().id
  local mixed = alice:data("v/" .. other):prove()
  mixed:say("RELAY/1 ACCEPT session=%s id=%s", alice.session, id)
  lu.assertStrContains(mixed.process:wait_line("^ERR .*"), "code=protocol")
  -- It is not spent, and the visitor is where it was.
  expect_joined(visitor, alice:accept(id))
  expect_joined(second, alice:accept(other))
  visitor:close()
  second:close()
end

-- Its key is proven and its line does not come: no byte that the agent would
-- take for the visitor's, and no end.
function T.test_a_late_data_connection_is_reset()
  local relay, alice = two_agents({ "--handshake", h.seconds(3) .. "s" })
  local visitor = h.connect(alice)
  local data = alice:data("v/" .. alice:hear().id):prove()
  data.process:wait()
  lu.assertNil(data.process:log():find("ERR", 1, true))
  lu.assertNotNil(data.process:log():find("errno=104", 1, true),
    data.process:log())
  relay:wait_log('connection refused [^\n]*reason="it said nothing in time"')
  visitor:close()
end

function T.test_an_id_is_good_once()
  local relay, alice = two_agents()
  local visitor = h.connect(alice)
  local id = alice:hear().id
  local data = alice:accept(id)
  expect_joined(visitor, data)
  local again = alice:accept(id)
  relay:wait_log('info connection refused [^\n]*reason="no such visitor"')
  again.process:wait()
  expect_joined(visitor, data)
  visitor:close()
end

function T.test_a_number_is_good_once()
  local relay, alice = two_agents({ pool = 4 })
  local function wait(n)
    local data = alice:data(("w/%s/%d"):format(alice.session, n)):prove()
    data:say("RELAY/1 WAIT session=%s n=%d", alice.session, n)
    return data
  end
  local first = wait(1)
  wait(1).process:wait() -- it is ended, the first is not
  local visitor = h.connect(alice)
  local _, fresh = first.process:wait_line("^VISITOR id=(%x+)"), wait(2)
  expect_joined(visitor, first)
  lu.assertTrue(fresh.process:running())
  visitor:close()
  relay:wait_log("visitor closed")
end

-- What was sent before is sent again, byte for byte.
function T.test_a_replay_is_worth_nothing()
  local file, tokens = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file, "--penalties", "off" })
  local wire, agent, listener = open_wire(relay, tokens.alice)
  local visitor = h.connect(agent)
  visitor:send("x")
  local served = wire:turn_until("the visitor is served", function()
    return listener:accept(0)
  end)
  wire:turn_until("it has come", function()
    return served:recv(0)
  end)
  for _, sent in ipairs(wire.sent) do
    local replay = h.connect(relay)
    replay:send(sent)
    replay:recv_all()
    replay:close()
  end
  lu.assertEquals(select(2, relay:log():gsub("connection refused", "")),
    #wire.sent)
  visitor:send("still here")
  wire:turn_until("the pair is untouched", function()
    return served:recv(0) == "still here"
  end)
  visitor:close()
  served:close()
  wire:close()
end

function T.test_a_mac_is_good_for_one_line()
  local relay, alice, bob = two_agents({ "--allow-plain" }, "--plain")
  lu.assertEquals(alice.ok.data, "plain")
  lu.assertEquals(bob.ok.data, "tls") -- it did not ask
  local visitor = h.connect(alice)
  local id = alice:hear().id
  local function line(what, key, session)
    return ("RELAY/1 ACCEPT session=%s id=%s mac=%s"):format(
      session or alice.session, id, keyed.base64url(keyed.hmac(key,
        ("%s %s %s"):format(what, session or alice.session, id))))
  end
  refused_plainly(relay, ("RELAY/1 ACCEPT session=%s id=%s"):format(
    alice.session, id))
  refused_plainly(relay, line("ACCEPT", bob.key))
  refused_plainly(relay, line("WAIT", alice.key))
  refused_plainly(relay, line("ACCEPT", bob.key, bob.session))
  refused_plainly(relay, line("ACCEPT", alice.key):sub(1, -2))
  local data = h.connect(relay)
  data:send(line("ACCEPT", alice.key) .. "\nhello")
  lu.assertEquals(visitor:recv_exact(5), "hello")
  refused_plainly(relay, line("ACCEPT", alice.key))
  data:send("still here")
  lu.assertEquals(visitor:recv_exact(10), "still here")
  data:close()
  visitor:close()
end

-- ---- addresses that stay ----------------------------------------------------

-- A second agent with the same token and name has the address at once, and the
-- first is told never to come back.
function T.test_the_same_name_takes_over()
  local file, tokens = make_tokens({ "alice", "bob" })
  local relay = h.start_relay({ "--tokens", file })
  local function start(id, name, ...)
    return h.start_echoserver(relay, { "--name", name, expect = "any",
      env = { RELAY_TOKEN = tokens[id] }, ... })
  end
  local first = start("alice", "web")
  local others = { start("alice", "db"), start("bob", "web") }
  local second = start("alice", "web")
  lu.assertEquals(second.port, first.port)
  lu.assertEquals({ first:wait() }, { "exit", 1 })
  lu.assertStrContains(first:log(), "replaced by a newer connection")
  h.echo(second, 10000)
  for _, other in ipairs(others) do
    lu.assertNotEquals(other.port, second.port)
    h.echo(other, 1000)
    lu.assertTrue(other:running())
  end
  -- Where it wants another port, the former is let go.
  local port = real.free_port()
  local third = start("alice", "web", "--port", port)
  lu.assertEquals(third.port, port)
  lu.assertEquals({ second:wait() }, { "exit", 1 })
  relay:wait_log("address released port=" .. second.port)
  h.echo(third, 1000)
end

-- Killed, and started anew with nothing but its token.
function T.test_a_killed_agent_comes_back_to_its_address()
  local file, tokens = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file })
  local listener = assert(sys.listen())
  local agent = start_expose(relay, listener, tokens.alice)
  local _, port = agent:wait_address()
  local visitor, served = join(agent, listener)
  agent:kill("KILL")
  agent:wait()
  scene.expect_reset(visitor)
  scene.expect_reset(served)
  relay:wait_log("agent gone")
  local late = h.connect(port)
  late:send("anybody there?")
  agent = start_expose(relay, listener, tokens.alice)
  lu.assertEquals(select(2, agent:wait_address()), port)
  local answer = assert(listener:accept())
  lu.assertEquals(answer:recv_exact(14), "anybody there?")
  for _, socket in ipairs({ visitor, served, late, answer }) do
    socket:close()
  end
end

-- The relay cannot tell that the former process is gone: its pairs end all the
-- same when the new one is there.
function T.test_pairs_of_a_former_process_are_reset()
  local file, tokens = make_tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file })
  local listener = assert(sys.listen())
  local former = start_expose(relay, listener, tokens.alice)
  former:wait_address()
  local visitor, served = join(former, listener)
  former:kill("STOP")
  local agent = start_expose(relay, listener, tokens.alice)
  lu.assertEquals(select(2, agent:wait_address()), former.port)
  scene.expect_reset(visitor)
  visitor:close()
  served:close()
end

-- A ticket alone is worth nothing, nor is it with the key of another's.
function T.test_a_ticket_of_anothers()
  local file = make_tokens({ "alice", "bob" })
  local relay = h.start_relay({ "--tokens", file, "--penalties", "off" })
  local alice = keyed.agent(relay, "alice", keyed.key_of(file, "alice"))
  local words = ("resume=%s port=%d"):format(alice.ok.resume, alice.port)
  typed.agent(relay, { refused = true, words = words })
  local bob = keyed.connect(relay, "t/bob", keyed.key_of(file, "bob")):prove()
  bob:say("RELAY/1 LISTEN %s", words)
  lu.assertEquals(bob:hear().code, "port-taken")
  alice:say("PING n=7")
  lu.assertEquals(alice:hear().n, "7")
end

return T
