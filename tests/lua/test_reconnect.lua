-- SPDX-License-Identifier: MIT
--
-- An agent that loses its control connection comes back to the same address:
-- pairs go on, visitors that came meanwhile are served. The control connection
-- leads through the test, which cuts it; data connections do not. And a local
-- service that is down is told at once.

local lu = require("luaunit")
local h = require("harness")
local scene = require("scene")
local sys = h.sys

local T = {}

local MIB <const> = 1 << 20

-- ---- the way between agent and relay ----------------------------------------

local Way = {}
Way.__index = Way

local function open_way(relay)
  return setmetatable({ relay = relay, listener = assert(sys.listen()) }, Way)
end

-- Takes the agent's next control connection and joins it to the relay.
function Way:accept()
  self.agent_side = assert(self.listener:accept())
  self.relay_side = h.connect(self.relay)
end

-- Passes one line on. OK tells the agent to open data connections to the
-- relay itself.
local function pass(from, to, words)
  local line = assert(from:recv_line())
  if line:find("^OK ") then
    line = line .. words
  end
  to:send(line .. "\n")
end

-- Passes on what is there, or comes soon.
function Way:turn()
  local words = (" dial=127.0.0.1:%d"):format(self.relay.port)
  local sides = { self.agent_side, self.relay_side }
  for _, side in ipairs(sys.poll(sides, "r", 0.01)) do
    if side == self.agent_side then
      pass(side, self.relay_side, words)
    else
      pass(side, self.agent_side, words)
    end
  end
end

-- Passes lines on until ask() is true.
function Way:turn_until(what, ask)
  return h.wait_until(what, function()
    self:turn()
    return ask()
  end)
end

-- The agent's next line about its address, its port.
function Way:await_address(agent)
  local line = self:turn_until("an address is established", function()
    return (agent:read_line(0))
  end)
  return math.tointeger(line:match("^established relay address: " ..
    "%(localhost, (%d+)%)$"))
end

function Way:close()
  for _, side in ipairs({ self.agent_side, self.relay_side, self.old_side,
                          self.other_old_side }) do
    side:close()
  end
end

local ends = {}

-- Both programs are told.
function ends.reset(way)
  way.agent_side:reset()
  way.relay_side:reset()
end

-- The same by FINs, without a BYE.
function ends.fin(way)
  way.agent_side:close()
  way.relay_side:close()
end

-- Only the agent is; to the relay the old session still lives.
function ends.agent_only(way)
  way.agent_side:reset()
  way.old_side = way.relay_side
end

-- Only the relay is told, and the agent hears nothing any more.
function ends.relay_only(way)
  way.relay_side:reset()
  way.old_side = way.agent_side
end

-- Nobody is: both wait for a heartbeat in vain.
function ends.silence(way)
  way.old_side, way.other_old_side = way.agent_side, way.relay_side
end

-- What lies between stands still while the test looks elsewhere: who is told of
-- an end has no use for a clock, and the others a long one.
local function start(pool, name)
  local dead = (name == "relay_only" or name == "silence") and "4s" or "10m"
  local relay = h.start_relay({ "--heartbeat", "1s", "--dead", dead })
  local way = open_way(relay)
  local listener = assert(sys.listen())
  local agent = h.start_expose(way.listener:port(), listener,
    { "--pool", pool, "--dead", dead, "--backoff-max", "400ms",
      wait = false })
  way:accept()
  agent.port = way:await_address(agent)
  way:turn_until("the pool is full", function()
    return scene.sockets(agent) == 1 + pool
  end)
  return relay, way, agent, listener
end

-- Those that are noticed by a heartbeat alone take their time: once will do.
local function each_end(test)
  for _, name in ipairs({ "reset", "fin", "agent_only" }) do
    for _, pool in ipairs({ 0, 2 }) do
      h.each_mode(T, ("test_comes_back_after_%s_pool_%d"):format(name, pool),
        function()
          test(ends[name], pool, name)
        end, h.plain_modes) -- what lies between reads the lines
    end
  end
  for _, name in ipairs({ "relay_only", "silence" }) do
    T["test_comes_back_after_" .. name] = function()
      test(ends[name], 2, name)
    end
  end
end

each_end(function(cut, pool, name)
  local relay, way, agent, listener = start(pool, name)
  local port = agent.port
  local visitor, served = h.connect(agent), nil
  way:turn_until("the visitor is served", function()
    served = listener:accept(0)
    return served
  end)
  visitor:send("before")
  lu.assertEquals(served:recv_exact(6), "before")

  cut(way)
  if name == "reset" or name == "fin" then
    relay:wait_log("agent gone")
  end
  -- Without control connection the pair goes on, both ways.
  visitor:send("during")
  lu.assertEquals(served:recv_exact(6), "during")
  served:send("so what")
  lu.assertEquals(visitor:recv_exact(7), "so what")
  -- And visitors are let in, to wait.
  local late = {}
  for i = 1, 5 do
    late[i] = h.connect(port)
    late[i]:send("late")
    late[i]:shutdown()
  end

  way:accept()
  lu.assertEquals(way:await_address(agent), port)
  for _ = 1, 5 do
    local socket
    way:turn_until("a late visitor is served", function()
      socket = listener:accept(0)
      return socket
    end)
    lu.assertEquals({ socket:recv_all() }, { "late", "eof" })
    socket:send("welcome")
    socket:close()
  end
  for _, socket in ipairs(late) do
    lu.assertEquals({ socket:recv_all() }, { "welcome", "eof" })
    socket:close()
  end
  h.exchange(visitor, served, MIB)
  way:turn()
  lu.assertTrue(relay:log():find("agent is back") ~= nil)
  way:close()
end)

-- ---- a stall ----------------------------------------------------------------

-- After a stall of the relay itself its clock says that nobody was heard.
function T.test_a_relay_that_stood_still_loses_nobody()
  local relay = h.start_relay({ "--heartbeat", "1s", "--dead", "3s" })
  local echo = h.start_echoserver(relay)
  relay:kill("STOP")
  sys.sleep(5)
  relay:kill("CONT")
  h.echo(echo, 1000)
  sys.sleep(1.5) -- a heartbeat later
  h.echo(echo, 1000)
  lu.assertNotStrContains(relay:log(), "agent gone")
end

-- ---- a service that is down -------------------------------------------------

-- However long anything else may take: nothing but REJECT ends it so soon.
local patient = { relay = { "--pairing", "10m" },
                  expose = { "--visit", "10m" } }

scene.each(T, "test_service_is_down", patient, function(s)
  local port = s.listener:port()
  s.listener:close()
  for _ = 1, 20 do
    local visitor, why = sys.connect("127.0.0.1", s.agent.port)
    if visitor then
      visitor:send("anybody there?")
      why = select(2, visitor:recv())
      visitor:close()
    end
    lu.assertEquals(why, "reset")
  end
  s.relay:wait_log("visitor rejected by its agent")
  s.listener = assert(sys.listen({ port = port }))
  local visitor, served = s:join()
  h.exchange(visitor, served, 1000)
end)

return T
