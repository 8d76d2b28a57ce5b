-- SPDX-License-Identifier: MIT
--
-- Visitors between their connection and their pair: agents that do not come
-- for them, visitors that leave, services that are down, agents that go.
--
-- With RELAY_TEST_FULL=1 the race between leaving and pairing is run 100 000
-- times instead of some thousand.

local lu = require("luaunit")
local h = require("harness")
local real = require("real")
local scene = require("scene")
local typed = require("typed")
local sys = h.sys

local full = os.getenv("RELAY_TEST_FULL") == "1"
local rounds = full and 100000 or 5000

local T = { limit = 60, limits = {}, tearDown = typed.close_all }

local function assert_waits(socket, message)
  lu.assertFalse(socket:wait("r", 0), message or "it should still wait")
end

local function assert_reset(socket, message)
  lu.assertEquals({ socket:recv_all() }, { "", "reset" }, message)
end

-- ---- agents that do not come ------------------------------------------------

function T.test_an_agent_that_lives_but_never_dials_back()
  local relay = h.start_relay({ "--pairing", "300ms" })
  local agent = typed.agent(relay)
  local fds = scene.sockets(relay)
  local visitor, message = agent:visitor()
  agent:say("PING n=1") -- it is there, and does nothing
  lu.assertEquals(agent:expect("PONG").n, "1")
  assert_reset(visitor)
  local gone = agent:expect("GONE")
  lu.assertEquals({ gone.id, gone.code }, { message.id, "ETIMEDOUT" })
  relay:wait_log("visitor closed conn=%d+ [^\n]*reason=ETIMEDOUT")
  scene.wait_sockets(relay, fds)
  -- The id is void.
  assert_reset(agent:accept(message.id))
  lu.assertEquals(agent:expect("GONE").id, message.id)
  agent:bye()
end

-- An agent that was not heard since VISITOR may be gone: its visitor parks,
-- and has its time anew when the agent is heard.
function T.test_a_silent_agents_visitor_parks()
  local relay = h.start_relay({ "--pairing", "1500ms" })
  local silent, clock = typed.agent(relay), typed.agent(relay)
  silent.mute = true
  local parked, message = silent:visitor()
  parked:send("early")
  -- Another one's visitor, that came later, tells when the time is over.
  local function await_pairing_time()
    local other = clock:visitor()
    clock:say("PING n=1")
    assert_reset(other)
    clock:expect("PONG")
    clock:expect("GONE")
  end
  await_pairing_time()
  assert_waits(parked)
  silent:say("PING n=1")
  silent:expect("PONG")
  local data = silent:accept(message.id)
  lu.assertEquals(data:recv_exact(5), "early")
  h.exchange(parked, data, 100000)
  -- Heard, and then it does nothing: as any other.
  parked, message = silent:visitor()
  await_pairing_time()
  assert_waits(parked)
  silent:say("PING n=2")
  assert_reset(parked)
  silent:expect("PONG")
  lu.assertEquals(silent:expect("GONE").id, message.id)
end

function T.test_a_parked_visitor_is_reset_in_the_end()
  local relay = h.start_relay({ "--pairing", "100ms", "--park", "300ms" })
  local agent = typed.agent(relay)
  agent.mute = true
  local visitor = agent:visitor()
  assert_reset(visitor)
  relay:wait_log("visitor closed [^\n]*reason=ETIMEDOUT")
end

-- ---- visitors that leave ----------------------------------------------------

function T.test_a_visitor_that_resets_before_pairing()
  local relay = h.start_relay()
  local agent = typed.agent(relay)
  local fds = scene.sockets(relay)
  local visitor, message = agent:visitor()
  visitor:send("never heard")
  visitor:reset()
  local gone = agent:expect("GONE")
  lu.assertEquals({ gone.id, gone.code }, { message.id, "ECONNRESET" })
  scene.wait_sockets(relay, fds)
  local late = agent:accept(message.id)
  assert_reset(late)
  lu.assertEquals(agent:expect("GONE").id, message.id)
  relay:wait_log('info connection refused [^\n]*reason="no such visitor"')
  scene.wait_sockets(relay, fds)
end

function T.test_a_visitor_that_half_closes_before_pairing()
  local relay = h.start_relay()
  local agent = typed.agent(relay)
  local visitor, message = agent:visitor()
  visitor:send("hello")
  visitor:shutdown()
  agent:say("PING n=1") -- a round trip in which nothing must happen
  lu.assertEquals(agent:hear().verb, "PONG")
  local data = agent:accept(message.id)
  lu.assertEquals({ data:recv_all() }, { "hello", "eof" })
  data:send("goodbye")
  data:shutdown()
  lu.assertEquals({ visitor:recv_all() }, { "goodbye", "eof" })
  relay:wait_log("visitor closed [^\n]*bytes_in=5 bytes_out=7 [^\n]*" ..
    "reason=ended")
end

function T.test_nc_that_sends_and_leaves_is_served()
  h.need("nc")
  local relay = h.start_relay()
  for _, pool in ipairs({ 0, 4 }) do
    local agent = h.start_echoserver(relay, { "--pool", pool })
    for _ = 1, 20 do
      lu.assertEquals(h.output_of({ "nc", "-N", "127.0.0.1", agent.port,
        input = "hello" }), "hello")
    end
  end
end

-- Each round: a visitor leaves while its agent comes for it. Whoever is first,
-- the agent's data connection ends in a reset, and nothing is left.
function T.test_leaving_against_pairing()
  local relay = h.start_relay({ "--log-level", "warn" })
  local agent = typed.agent(relay)
  local fds, lost = scene.sockets(relay), 0
  for round = 1, rounds do
    local visitor, message = agent:visitor()
    local data
    if round % 2 == 0 then
      visitor:reset()
      data = agent:accept(message.id)
    else
      data = agent:accept(message.id)
      visitor:reset()
    end
    local _, how = data:recv_all()
    if how ~= "reset" then
      lost = lost + 1
    end
    data:close()
    lu.assertEquals(lost, 0, "round " .. round)
  end
  scene.wait_sockets(relay, fds)
  agent:bye()
end
T.limits.test_leaving_against_pairing = full and 900 or 60

-- One batch at once: some reset at various moments, some half-close early, and
-- those must all be served.
local function mixed_batch(agent, batch)
  local polite = {}
  for i = 1, 100 do
    local visitor = h.connect(agent)
    local kind = (i + batch) % 4
    if kind == 0 then
      visitor:reset()
    elseif kind == 1 then
      visitor:send("about to leave")
      visitor:reset()
    else
      visitor:send(("hello %d"):format(i))
      visitor:shutdown()
      polite[i] = visitor
    end
  end
  for i, visitor in pairs(polite) do
    lu.assertEquals({ visitor:recv_all() }, { ("hello %d"):format(i), "eof" })
    visitor:close()
  end
end

function T.test_leaving_against_real_agents()
  local relay = h.start_relay({ "--log-level", "warn" })
  local fds = scene.sockets(relay)
  for _, pool in ipairs({ 0, 4 }) do
    local agent = h.start_echoserver(relay, { "--pool", pool,
      "--log-level", "warn" })
    scene.wait_sockets(relay, fds + 2 + pool)
    local own = scene.sockets(agent)
    for batch = 1, rounds / 200 do
      mixed_batch(agent, batch)
    end
    scene.wait_sockets(agent, own)
    scene.wait_sockets(relay, fds + 2 + pool)
    agent:stop()
    scene.wait_sockets(relay, fds)
  end
end
T.limits.test_leaving_against_real_agents = full and 900 or 60

-- ---- services that are down -------------------------------------------------

-- No time-out on the way would end it while the test waits.
local LATE <const> = "10m"

local function refused_by(relay, target, options)
  local agent = h.start_expose(relay, target, { "--connect", LATE, "--visit",
    LATE, table.unpack(options) })
  typed.turned_away(agent.port, "anybody there?")
  agent:stop()
end

function T.test_a_service_that_is_down()
  local port = real.free_port()
  local relay = h.start_relay({ "--pairing", LATE })
  local fds = scene.sockets(relay)
  for i, target in ipairs({ port, "localhost:" .. port,
      "unix:/nowhere/at/all", "no.such.host.invalid:80" }) do
    if h.sanitized and i == 4 then
      break -- a look-up may take its time
    end
    for _, pool in ipairs({ 0, 2 }) do
      refused_by(relay, target, { "--pool", pool })
    end
  end
  for _, reason in ipairs({ "connection refused",
      "no such file or directory" }) do
    lu.assertStrContains(relay:log(),
      'reason="service: ' .. reason .. '"', false, relay:log())
  end
  lu.assertStrMatches(relay:log(), ".*visitor rejected by its agent " ..
    "conn=%d+ reason=.*")
  scene.wait_sockets(relay, fds)
end

-- REJECT in its two moments, and what it cannot do.
function T.test_reject_by_hand()
  local relay = h.start_relay()
  local agent, other = typed.agent(relay), typed.agent(relay)
  local visitor, message = agent:visitor()
  agent:say("REJECT id=%s reason=not%%20today", message.id)
  assert_reset(visitor)
  relay:wait_log('rejected by its agent conn=%d+ reason="not today"')
  visitor, message = agent:visitor()
  other:say("REJECT id=%s", message.id) -- another's visitor
  other:say("PING n=1")
  other:expect("PONG")
  assert_waits(visitor)
  local data = agent:accept(message.id)
  visitor:send("x")
  lu.assertEquals(data:recv_exact(1), "x")
  agent:say("REJECT id=%s", message.id) -- joined already
  assert_reset(visitor)
  assert_reset(data)
end

-- ---- agents that go ---------------------------------------------------------

local function assert_refused(port)
  h.wait_until("the address is gone", function()
    local socket, why = sys.connect("127.0.0.1", port)
    if socket then
      socket:reset()
    end
    return why == "ECONNREFUSED"
  end)
end

-- SIGINT says BYE: no grace (a minute, here) for the address.
function T.test_an_interrupted_agent_gives_its_address_up()
  local relay = h.start_relay()
  local fds = scene.sockets(relay)
  for _, start in ipairs({ h.start_echoserver, function()
    return h.start_expose(relay, 1)
  end }) do
    local agent = start(relay)
    local log_before = #relay:log()
    agent:stop("INT")
    assert_refused(agent.port)
    scene.wait_sockets(relay, fds)
    local log = relay:log():sub(log_before + 1)
    lu.assertStrMatches(log, (".*agent gone agent=%%d+ from=[%%d.:]+ " ..
      "port=%d reason=bye\n.*address released port=%d reason=.*")
      :format(agent.port, agent.port))
  end
end

-- A service whose backlog is full keeps a visitor waiting for good.
local function stuck_service()
  local listener = sys.listen({ backlog = 0 })
  local fillers = {}
  repeat
    local filler = sys.connect("127.0.0.1", listener:port(),
      { timeout = 0.2 })
    table.insert(fillers, filler)
  until not filler
  return listener, fillers
end

function T.test_an_interrupted_agents_waiting_visitors_are_reset()
  local relay = h.start_relay()
  local fds = scene.sockets(relay)
  for _, pool in ipairs({ 0, 2 }) do
    local listener, fillers = stuck_service()
    local agent = h.start_expose(relay, listener, { "--pool", pool,
      "--log-level", "debug" })
    local own, visitors = scene.sockets(agent), {}
    for i = 1, 5 do
      visitors[i] = h.connect(agent)
      visitors[i]:send("hello")
    end
    h.wait_until("it is busy with them", function()
      return scene.sockets(agent) >= own + 5
    end)
    for _, visitor in ipairs(visitors) do
      assert_waits(visitor)
    end
    agent:stop("INT")
    for _, visitor in ipairs(visitors) do
      assert_reset(visitor)
    end
    assert_refused(agent.port)
    scene.wait_sockets(relay, fds)
    listener:close()
    lu.assertTrue(#fillers > 0)
  end
end

-- By hand: waiting visitors are reset, joined ones go on to their own end.
function T.test_bye_spares_what_is_joined()
  local relay = h.start_relay()
  local fds = scene.sockets(relay)
  local agent = typed.agent(relay)
  local joined, data = agent:join()
  joined:send("x")
  lu.assertEquals(data:recv_exact(1), "x")
  local waiting = agent:visitor()
  agent:say("BYE reason=done%%20for%%20today")
  lu.assertEquals({ agent:hear() }, { nil, "eof" })
  assert_reset(waiting)
  assert_refused(agent.port)
  relay:wait_log('agent gone agent=%d+ from=%S+ port=' .. agent.port ..
    ' reason="done for today"')
  h.exchange(joined, data, 1 << 20)
  scene.wait_sockets(relay, fds)
  agent:close()
end

-- And without BYE the address stays, for those that come to be served later.
function T.test_a_lost_agent_keeps_its_address()
  local relay = h.start_relay()
  local agent = typed.agent(relay)
  local early, message = agent:visitor()
  agent:close()
  relay:wait_log("agent gone [^\n]*reason=EOF")
  local late = h.connect(agent.port)
  late:send("late")
  local again = typed.agent(relay, { words = "resume=" .. agent.resume })
  lu.assertEquals(again.port, agent.port)
  lu.assertNotEquals(again.session, agent.session)
  assert_reset(again:accept(message.id)) -- an id of the lost session
  for _, visitor in ipairs({ early, late }) do
    visitor:shutdown()
  end
  local got = {}
  for _ = 1, 2 do
    message = again:expect("VISITOR", "GONE")
    local data = again:accept(message.id)
    local bytes = data:recv_all()
    table.insert(got, bytes)
    data:close()
  end
  table.sort(got)
  lu.assertEquals(got, { "", "late" })
end

return T
