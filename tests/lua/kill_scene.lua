-- SPDX-License-Identifier: MIT
--
-- A relay, an `expose` and an echo server that are known again when they come
-- back, and the load that goes through them while the test kills one or the
-- other.

local lu = require("luaunit")
local h = require("harness")
local keyed = require("keyed")
local load = require("load")
local real = require("real")

local kill_scene = {}

kill_scene.agents = { "expose", "echo" }

-- Nothing but a kill or a newcomer ends anything.
local patient = { "--heartbeat", "1m", "--dead", "10m", "--pairing", "10m",
  "--park", "10m" }

-- ---- how an agent is known again --------------------------------------------

-- Each is what to tell the relay, an agent and somebody else's agent.
local ways = {}

local function with_token(relay, agent)
  local file, tokens = keyed.make_tokens({ "alice", "bob" }, "--plain")
  local function words_of(id)
    return { env = { RELAY_TOKEN = tokens[id] }, table.unpack(agent) }
  end
  return {
    relay = { "--tokens", file, table.unpack(relay) },
    agent = function()
      return words_of("alice")
    end,
    rival = words_of("bob"),
  }
end

function ways.token()
  return with_token({}, {})
end

function ways.token_plain()
  return with_token({ "--allow-plain" }, { "--data", "plain" })
end

-- A ticket in a file is all it has.
function ways.ticket()
  local directory = h.tmpdir()
  return {
    relay = {},
    agent = function(name)
      return { "--state", directory .. "/" .. name }
    end,
    rival = {},
  }
end

local modes = { token = { "splice" }, token_plain = { "splice", "copy" },
                ticket = { "splice", "copy" } }

-- ---- all of them ------------------------------------------------------------

local Scene = {}
Scene.__index = Scene

local function joined(...)
  local all = {}
  for _, list in ipairs({ ... }) do
    for key, value in pairs(list) do
      all[type(key) == "string" and key or #all + 1] = value
    end
  end
  return all
end

-- Its ports, too, are none that the kernel gives to whoever connects while the
-- relay is not there.
function Scene:start_relay()
  local port = self.relay and self.relay.port or real.free_port()
  return h.start_relay(joined(self.way.relay, patient, { "--state", self.state,
    port = port, wait = false, expect = "any" }))
end

-- The relay accepts connections.
function Scene:await_relay()
  local port = self.load:await_line(self.relay, "^listening on .*:(%d+)$")
  self.relay.port = math.tointeger(port)
end

function Scene:start_agent(name)
  local options = joined(self.way.agent(name),
    { "--backoff-max", "200ms", wait = false, expect = "any" })
  if name == "expose" then
    return h.start_expose(self.relay, self.load.listener, options)
  end
  return h.start_echoserver(self.relay, options)
end

-- The agent has its address; the same as ever.
function Scene:await(name)
  local port = self.load:await_address(self[name])
  if self.load[name] then
    lu.assertEquals(port, self.load[name], name .. " has its address again")
  end
  self.load[name] = port
end

local function open(way)
  local self = setmetatable({ way = way, load = load.new(),
    state = h.tmpdir() }, Scene)
  self.relay = self:start_relay()
  self:await_relay()
  for _, name in ipairs(kill_scene.agents) do
    self[name] = self:start_agent(name)
    self:await(name)
  end
  return self
end

-- Somebody else does not get an address that waits for its agent.
function Scene:expect_kept(name)
  local rival = h.start_echoserver(self.relay, joined(self.way.rival,
    { "--port", self.load[name], "--once", wait = false, expect = 1 }))
  self.load:await_end(rival)
  lu.assertEquals({ rival:wait() }, { "exit", 1 })
  lu.assertStrContains(rival:log(), "port is taken")
end

-- All come to an end; none was turned away.
function Scene:close()
  local counts = self.load:close()
  lu.assertTrue(counts.exact > 0 and counts.reset > 0)
  for _, text in ipairs({ "turned away", "reason=busy", "reason=timeout",
                          "visitor denied" }) do
    lu.assertNotStrContains(self.relay:log(), text)
  end
  for _, name in ipairs(kill_scene.agents) do
    self[name]:stop()
  end
  return counts
end

-- Adds test(scene) for each way of being known again; `check` is given what
-- became of the load.
function kill_scene.each(tests, name, test, check)
  for way, list in pairs(modes) do
    for _, mode in ipairs(list) do
      tests[("%s_%s_%s"):format(name, way, mode)] = function()
        h.current_mode = mode
        local s = open(ways[way]())
        test(s)
        check(s:close())
      end
    end
  end
end

return kill_scene
