-- SPDX-License-Identifier: MIT
--
-- How programs end: drained, at once, or because the other side vanished; and
-- what becomes of those they served.

local lu = require("luaunit")
local h = require("harness")
local netns = require("netns")
local real = require("real")
local scene = require("scene")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

local function say(from, to, text)
  from:send(text)
  lu.assertEquals(to:recv_exact(#text), text)
end

local function assert_refused(port)
  h.wait_until("nobody listens", function()
    local socket, why = sys.connect("127.0.0.1", port)
    if socket then
      socket:reset()
    end
    return why == "ECONNREFUSED"
  end)
end

-- A relay with one live pair, and the agent's log once it has lost the relay.
local function live_pair(...)
  local relay = h.start_relay({ ... })
  local listener = sys.listen()
  local agent = h.start_expose(relay, listener, { "--backoff-min", "60s",
    "--backoff-max", "60s" })
  local visitor, served = h.join(agent, listener)
  say(visitor, served, "before")
  return relay, agent, visitor, served
end

-- ---- the relay is told to end -----------------------------------------------

function T.test_sigterm_lets_pairs_finish()
  local relay, agent, visitor, served = live_pair()
  relay:kill("TERM")
  relay:wait_log("info draining pairs=1 ms=30000")
  assert_refused(relay.port)
  assert_refused(agent.port)
  agent:wait_log('warn relay lost [^\n]*reason="the relay is shutting ' ..
    'down" retry_in_ms=1%d%d%d')
  say(visitor, served, "a drain is not an end")
  say(served, visitor, "in either direction")
  h.exchange(visitor, served, 1 << 20)
  lu.assertEquals({ relay:wait() }, { "exit", 0 })
  lu.assertStrMatches(relay:log(), ".*visitor closed conn=%d+ [^\n]*" ..
    "reason=ended\n.*")
end

function T.test_a_drain_is_bounded()
  local relay, _, visitor, served = live_pair("--drain", "300ms")
  relay:kill("TERM")
  lu.assertEquals({ relay:wait() }, { "exit", 0 })
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  lu.assertEquals({ served:recv_all() }, { "", "reset" })
  lu.assertStrMatches(relay:log(), ".*visitor closed conn=%d+ [^\n]*" ..
    "reason=draining\n.*")
end

function T.test_a_second_sigterm_ends_at_once()
  local relay, _, visitor, served = live_pair("--drain", "1h")
  relay:kill("TERM")
  relay:wait_log("draining pairs=1 ms=3600000")
  say(visitor, served, "still there")
  relay:kill("TERM")
  lu.assertEquals({ relay:wait() }, { "exit", 0 })
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  lu.assertEquals({ served:recv_all() }, { "", "reset" })
end

function T.test_sigint_ends_at_once()
  local relay, agent, visitor, served = live_pair()
  relay:stop("INT")
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  lu.assertEquals({ served:recv_all() }, { "", "reset" })
  agent:wait_log("warn relay lost")
end

function T.test_sigint_ends_a_drain()
  local relay, _, visitor = live_pair("--drain", "1h")
  relay:kill("TERM")
  relay:wait_log("draining")
  relay:stop("INT")
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
end

function T.test_sigterm_with_nothing_to_wait_for()
  local relay = h.start_relay({ "--drain", "1h" })
  relay:stop("TERM")
  lu.assertEquals(relay:text(), ("listening on %s:%d\n"):format(relay.host,
    relay.port))
  relay = h.start_relay({ "--drain", "1h" })
  local agent = typed.agent(relay)
  h.connect(relay) -- has not said what it is
  relay:kill("TERM")
  local bye = agent:expect("BYE")
  lu.assertEquals({ bye.retry, bye.reason },
    { "1", "the relay is shutting down" })
  lu.assertEquals({ agent:hear() }, { nil, "eof" })
  agent:close()
  lu.assertEquals({ relay:wait() }, { "exit", 0 })
end

-- Who was not served yet when the drain began will not be.
function T.test_a_drain_resets_who_waits()
  local relay = h.start_relay({ "--drain", "1h" })
  local agent, lost = typed.agent(relay), typed.agent(relay)
  local waiting = agent:visitor()
  lost:close()
  relay:wait_log("agent gone")
  local parked = h.connect(lost.port)
  h.wait_until("it is parked", function()
    return scene.sockets(relay) >= 6
  end)
  relay:kill("TERM")
  lu.assertEquals({ waiting:recv_all() }, { "", "reset" })
  lu.assertEquals({ parked:recv_all() }, { "", "reset" })
  agent:expect("BYE", "GONE")
  agent:close()
  lu.assertEquals({ relay:wait() }, { "exit", 0 })
end

function T.test_sighup_changes_nothing_without_a_script()
  local relay, _, visitor, served = live_pair()
  relay:kill("HUP")
  relay:wait_log("nothing to reload")
  say(visitor, served, "still there")
end

-- ---- an agent is told to end ------------------------------------------------

function T.test_an_agent_drains_too()
  local relay, agent, visitor, served = live_pair()
  agent:kill("TERM")
  assert_refused(agent.port)
  relay:wait_log("agent gone [^\n]*reason=bye")
  say(visitor, served, "still there")
  h.exchange(visitor, served, 1 << 20)
  lu.assertEquals({ agent:wait() }, { "exit", 0 })
end

function T.test_an_agents_second_sigterm_ends_it()
  local _, agent, visitor, served = live_pair()
  agent:kill("TERM")
  assert_refused(agent.port)
  say(visitor, served, "still there")
  agent:kill("TERM")
  lu.assertEquals({ agent:wait() }, { "exit", 0 })
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  lu.assertEquals({ served:recv_all() }, { "", "reset" })
end

function T.test_an_agents_drain_is_bounded()
  local relay = h.start_relay()
  local agent = h.start_echoserver(relay, { "--drain", "300ms" })
  local visitor = h.connect(agent)
  visitor:send("x")
  lu.assertEquals(visitor:recv_exact(1), "x")
  agent:kill("TERM")
  lu.assertEquals({ agent:wait() }, { "exit", 0 })
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
end

-- Wherever it is on its way to an address, an agent ends when told to.
function T.test_an_agent_ends_in_every_phase()
  local stranger, nobody = sys.listen(), real.free_port()
  for _, signal in ipairs({ "INT", "TERM", "HUP" }) do
    local agent = h.start_echoserver(nobody, { wait = false })
    agent:wait_log("relay not reachable")
    agent:stop(signal)
  end
  for _, is_open in ipairs({ false, true }) do
    local agent = h.start_echoserver(stranger:port(), { wait = false,
      relay_host = "127.0.0.1" })
    local relay = typed.meet(stranger)
    if is_open then
      relay:welcome("localhost", 1234)
      agent:wait_address()
    end
    agent:stop("TERM")
    lu.assertEquals(relay:hear(), { verb = "BYE" })
  end
end

function T.test_nohup_is_heeded()
  local relay = h.start_relay()
  local agent = h.start({ "nohup", h.program("echoserver"), "localhost",
    relay.port, name = "echoserver" })
  agent:wait_address()
  agent:kill("HUP")
  h.echo(agent, 1000)
  agent:stop("INT")
end

-- ---- a visitor vanishes -----------------------------------------------------

-- A relay and an agent in one namespace, and a visitor in another, whose cable
-- is drawn: no FIN, no reset, nothing ever again.
local function split_world(options)
  local inner, outer = netns.new(), netns.new()
  inner:link(outer, "wire", "192.0.2.1/24", "192.0.2.2/24")
  local relay = inner:start({ h.program("relay"), "0", "--listen", "192.0.2.1",
    "--keepalive", "1", "--keepalive-interval", "1", "--keepalive-count", "2",
    expect = 0, table.unpack(options or {}) })
  relay.port = relay:wait_line("^listening on 192%.0%.2%.1:(%d+)$")
  local agent = inner:start({ h.program("echoserver"), "192.0.2.1", relay.port,
    "--pool", "0", expect = 0 })
  agent:wait_address()
  return inner, outer, relay, agent
end

local function visit_from(space, agent)
  h.need("nc")
  local visitor = space:start({ "nc", "192.0.2.1", tostring(agent.port),
    stdin = "pipe" })
  visitor:write("hello\n")
  visitor:wait_line("^hello$")
  return visitor
end

function T.test_a_visitor_that_vanishes_is_noticed()
  local _, outer, relay, agent = split_world()
  local sockets, own = scene.sockets(relay), scene.sockets(agent)
  local visitor = visit_from(outer, agent)
  lu.assertEquals(scene.sockets(relay), sockets + 2)
  -- As long as it is there, silence is no fault.
  sys.sleep(4)
  lu.assertEquals(scene.sockets(relay), sockets + 2)
  outer:set_link("wire", false)
  relay:wait_log("visitor closed conn=%d+ from=192.0.2.2:%d+ [^\n]*" ..
    "bytes_in=6 bytes_out=6 [^\n]*reason=E%u+", 20)
  -- The agent's leg was reset.
  agent:wait_log("visitor closed id=%x+ from=192.0.2.2:%d+ [^\n]*" ..
    "reason=ECONNRESET")
  scene.wait_sockets(relay, sockets)
  scene.wait_sockets(agent, own)
  lu.assertTrue(visitor:running()) -- nobody has told it
end

-- With bytes on their way to it there is no keepalive, and it is noticed too.
function T.test_a_visitor_that_vanishes_while_it_is_sent_to()
  h.need("nc")
  local inner, outer, relay = split_world()
  local service = inner:start({ "nc", "-l", "127.0.0.1", "9000",
    stdin = "pipe" })
  local agent = inner:start({ h.program("expose"), "192.0.2.1", relay.port,
    "9000", "--pool", "0", expect = 0 })
  agent:wait_address()
  h.wait_until("the service listens", function()
    return inner:run("ss", "-Htln"):find("127.0.0.1:9000", 1, true)
  end)
  local sockets = scene.sockets(relay)
  local visitor = outer:start({ "nc", "192.0.2.1", tostring(agent.port),
    stdin = "pipe" })
  visitor:write("hello\n")
  service:wait_line("^hello$")
  outer:set_link("wire", false)
  service:write("are you there?\n")
  relay:wait_log("visitor closed conn=%d+ from=192.0.2.2:%d+ [^\n]*" ..
    "bytes_in=6 bytes_out=15 [^\n]*reason=ETIMEDOUT", 20)
  scene.wait_sockets(relay, sockets)
end

-- One that vanishes before it was served, too.
function T.test_a_visitor_that_vanishes_while_it_waits()
  local inner, outer, relay, agent = split_world({ "--grace", "1h",
    "--park", "1h" })
  local sockets = scene.sockets(relay)
  agent:kill("KILL")
  relay:wait_log("agent gone")
  h.need("nc")
  outer:start({ "nc", "192.0.2.1", tostring(agent.port), stdin = "pipe" })
  scene.wait_sockets(relay, sockets) -- one came, one went
  h.wait_until("the visitor is parked", function()
    return inner:run("ss", "-Htn", "state", "established", "src",
      "192.0.2.1:" .. agent.port):find("192.0.2.2", 1, true)
  end)
  outer:set_link("wire", false)
  relay:wait_log("visitor closed conn=%d+ from=192.0.2.2:%d+ [^\n]*" ..
    "reason=E%u+", 20)
  scene.wait_sockets(relay, sockets - 1)
end

return T
