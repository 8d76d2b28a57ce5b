-- SPDX-License-Identifier: MIT
--
-- Death by SIGKILL, which no program can answer: whatever it cut is a reset at
-- both ends, never an end that looks like the proper one.

local lu = require("luaunit")
local h = require("harness")
local scene = require("scene")
local sys = h.sys

local T = {}

-- Connections in every state: at rest, with bytes stuck everywhere in both
-- directions, and half closed from either side.
local function some_of_each(s)
  local all = {}
  all.rest = { s:joined_from("visitor") }
  all.full = { s:joined_from("visitor") }
  all.sent = { scene.fill(all.full[1], 1), scene.fill(all.full[2], 2) }
  for _, who in ipairs(scene.both_sides) do
    local first, last = s:joined_from(who)
    first:shutdown()
    scene.expect_eof(last)
    all[who] = { first, last }
  end
  return all
end

-- A part of what was sent, then a reset.
local function expect_cut(socket, seed, sent)
  local got, how = socket:recv_all()
  lu.assertEquals(how, "reset")
  lu.assertTrue(#got < sent)
  lu.assertTrue(got == sys.pattern(seed, 0, #got))
end

local function expect_all_cut(all)
  scene.expect_reset(all.rest[1])
  scene.expect_reset(all.rest[2])
  expect_cut(all.full[1], 2, all.sent[2])
  expect_cut(all.full[2], 1, all.sent[1])
  for _, who in ipairs(scene.both_sides) do
    scene.expect_reset(all[who][1])
    scene.expect_reset_of_sender(all[who][2])
  end
end

-- Adds test(scene) for a scene that does not come to rest again.
local function each_killing(name, test)
  for _, pool in ipairs({ 0, 2 }) do
    h.each_mode(T, name .. (pool == 0 and "_bare" or "_pool"), function()
      test(scene.open({ pool = pool }))
    end)
  end
end

each_killing("test_relay_is_killed", function(s)
  local all = some_of_each(s)
  s.relay:kill("KILL")
  expect_all_cut(all)
  scene.wait_sockets(s.agent, 0)
end)

each_killing("test_agent_is_killed", function(s)
  local all = some_of_each(s)
  s.agent:kill("KILL")
  expect_all_cut(all)
  scene.wait_sockets(s.relay, 2) -- it listens to both still
end)

-- Visitors that nobody has taken yet.
each_killing("test_relay_is_killed_before_they_are_joined", function(s)
  s.agent:kill("STOP")
  local visitors = {}
  for i = 1, 10 do
    visitors[i] = s:visit()
    if i % 2 == 0 then -- unread bytes make a reset of any close
      visitors[i]:send("hello")
    end
  end
  h.wait_until("they are let in", function()
    return scene.sockets(s.relay) == 3 + s.pool + 10
  end)
  s.relay:kill("KILL")
  for _, visitor in ipairs(visitors) do
    scene.expect_reset(visitor)
  end
end)

-- A visitor dies with unread bytes; then the relay is told by a reset.
scene.each(T, "test_visitor_is_killed", {}, function(s)
  h.need("nc")
  local nc = h.start({ "nc", "127.0.0.1", s.agent.port, stdin = "pipe",
    stdout = "null" })
  nc:write("hello\n")
  local served = s:keep(assert(s.listener:accept()))
  lu.assertEquals(served:recv_line(), "hello")
  nc:kill("STOP")
  local sent = scene.fill(served, 1)
  lu.assertTrue(sent > 0)
  nc:kill("KILL")
  scene.expect_reset(served)
end)

-- One that dies at rest says FIN, as it would without a relay; what is sent to
-- it then is answered with a reset, which comes through as well.
scene.each(T, "test_visitor_is_killed_at_rest", {}, function(s)
  h.need("nc")
  local nc = h.start({ "nc", "127.0.0.1", s.agent.port, stdin = "pipe" })
  nc:write("hello\n")
  local served = s:keep(assert(s.listener:accept()))
  lu.assertEquals(served:recv_line(), "hello")
  nc:kill("KILL")
  scene.expect_eof(served)
  scene.expect_reset_of_sender(served)
end)

-- The echo has one connection only, and that is cut too.
h.each_mode(T, "test_echo_is_killed", function()
  for _, victim in ipairs({ "relay", "echo" }) do
    local programs = { relay = h.start_relay() }
    programs.echo = h.start_echoserver(programs.relay)
    local rest, full = h.connect(programs.echo), h.connect(programs.echo)
    rest:send("x")
    lu.assertEquals(rest:recv(), "x")
    local sent = scene.fill(full, 1)
    programs[victim]:kill("KILL")
    scene.expect_reset(rest)
    expect_cut(full, 1, sent)
  end
end)

return T
