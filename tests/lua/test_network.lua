-- SPDX-License-Identifier: MIT
--
-- What networks do to connections: a link that goes down, and comes back or
-- does not, and packets that are lost. Nobody is but by the time limits, and by
-- them everybody is noticed.
--
-- With RELAY_TEST_FULL=1 an agent's silence is waited for as long as the
-- defaults have it, and not a quarter of it:
--   RELAY_TEST_FULL=1 ./dev test network

local lu = require("luaunit")
local h = require("harness")
local machines = require("machines")
local scene = require("scene")
local sys = h.sys

local T = { limit = 90, limits = {} }

local full = os.getenv("RELAY_TEST_FULL") == "1"

local MIB <const> = 1 << 20

-- Heartbeats of the relay and of the agent, and within what time a silent
-- agent is noticed: an interval, the dead time, and much that is granted, but
-- less than the defaults would take.
local HURRY <const> = full and {} or { "--heartbeat", "1s", "--dead", "3500ms" }
local HURRY_AGENT <const> = full and {} or { "--dead", "3500ms" }
local NOTICED <const> = full and 40 or 15

local function arguments(...)
  local all = {}
  for _, list in ipairs({ ... }) do
    table.move(list, 1, #list, #all + 1, all)
  end
  return all
end

-- The same in all modes, at the same time: what takes long here is waiting.
local function open_all(options)
  local worlds = {}
  for i, mode in ipairs(h.modes) do
    worlds[i] = machines.open({ mode = mode, relay = options.relay,
      expose = options.expose, listen = options.listen })
  end
  return worlds
end

local function each(worlds, action)
  for _, world in ipairs(worlds) do
    action(world)
  end
end

local function all(worlds, method)
  each(worlds, function(world)
    world[method](world)
  end)
end

local function say(from, to, text)
  from:send(text)
  lu.assertEquals(to:recv_exact(#text), text)
end

local function join(world)
  world.visitor, world.served = world:join()
  say(world.visitor, world.served, "hello")
  say(world.served, world.visitor, "welcome")
end

-- All agents' links at once; how long until each was noticed at the latest.
local function cut_and_wait(worlds, on_cut)
  all(worlds, "cut")
  local began = sys.now()
  each(worlds, on_cut or function() end)
  each(worlds, function(world)
    world.relay:wait_log("agent gone [^\n]*reason=[Eh]%w+",
      NOTICED + began - sys.now())
  end)
end

local function come_back(world)
  local port = world.agent.port
  world:mend()
  world.agent:wait_address(30)
  lu.assertEquals(world.agent.port, port)
  world.relay:wait_log("agent is back")
end

-- ---- an agent that vanishes -------------------------------------------------

function T.test_an_agent_that_vanishes_while_idle()
  local worlds = open_all({ relay = HURRY,
    expose = arguments(HURRY_AGENT, { "--backoff-max", "1s" }) })
  cut_and_wait(worlds)
  -- In grace its address is open, and who comes waits for it.
  each(worlds, function(world)
    world.visitor = world:visit()
    world.visitor:send("early")
    lu.assertFalse(world.visitor:wait("r", 0.1))
  end)
  each(worlds, function(world)
    come_back(world)
    world.served = assert(world.listener:accept())
    lu.assertEquals(world.served:recv_exact(5), "early")
    h.exchange(world.visitor, world.served, MIB)
  end)
end

-- Bytes on their way hide a silence from keepalive, and a heartbeat on its way
-- is one of them.
function T.test_an_agent_that_vanishes_with_unacknowledged_data()
  local worlds = open_all({
    relay = arguments(HURRY, { "--grace", "500ms" }), expose = HURRY_AGENT })
  each(worlds, join)
  cut_and_wait(worlds, function(world)
    scene.fill(world.visitor, 1)
    world.late = world:visit()
  end)
  -- It does not come back: after the grace all its visitors are reset.
  each(worlds, function(world)
    for _, visitor in ipairs({ world.visitor, world.late }) do
      lu.assertEquals({ visitor:recv() }, { nil, "reset" })
    end
    scene.wait_sockets(world.relay, 1)
  end)
end

-- It comes back within the grace: what was on its way arrives.
function T.test_an_agent_that_comes_back_to_unacknowledged_data()
  local worlds = open_all({ relay = HURRY,
    expose = arguments(HURRY_AGENT, { "--backoff-max", "1s" }) })
  each(worlds, join)
  cut_and_wait(worlds, function(world)
    world.sent = scene.fill(world.visitor, 1)
    world.answered = scene.fill(world.served, 2)
  end)
  each(worlds, come_back)
  each(worlds, function(world)
    sys.timeout(h.seconds(60)) -- TCP itself looks again after that long
    scene.take(world.served, 1, world.sent, 65536)
    scene.take(world.visitor, 2, world.answered, 65536)
    sys.timeout(h.seconds(10))
    h.exchange(world.visitor, world.served, MIB)
  end)
end

-- ---- a link that comes back in time -----------------------------------------

-- With the defaults, and at the worst moment: just before the heartbeats, the
-- last of which was heard an interval ago. TCP looks again 6 s after that, and
-- again 6 s later.
function T.test_a_link_that_is_down_for_8_seconds()
  local worlds = open_all({})
  local began = sys.now()
  each(worlds, join)
  sys.sleep(4.2 - (sys.now() - began))
  all(worlds, "block")
  began = sys.now()
  each(worlds, function(world)
    world.sent = scene.fill(world.visitor, 1)
    world.answered = scene.fill(world.served, 2)
  end)
  sys.sleep(8 - (sys.now() - began))
  all(worlds, "unblock")
  each(worlds, function(world)
    scene.take(world.served, 1, world.sent, 65536)
    scene.take(world.visitor, 2, world.answered, 65536)
    h.exchange(world.visitor, world.served, MIB)
  end)
  -- Until the heartbeats, too, would have been missed.
  sys.sleep(16 - (sys.now() - began))
  each(worlds, function(world)
    lu.assertNotStrContains(world.relay:log(), "agent gone")
    lu.assertNotStrContains(world.agent:log(), "relay lost")
    local visitor, served = world:join()
    h.exchange(visitor, served, 1000)
  end)
end

-- ---- packets that are lost --------------------------------------------------

h.each_mode(T, "test_5_percent_of_all_packets_are_lost", function(mode)
  local world = machines.open({ mode = mode })
  world:lose(5)
  h.pump(world:streams(3, MIB))
  for _, count in ipairs(world:lost()) do
    lu.assertTrue(count > 20, count .. " were lost")
  end
  lu.assertNotStrContains(world.relay:log(), "agent gone")
end)

return T
