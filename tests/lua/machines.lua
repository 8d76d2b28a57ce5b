-- SPDX-License-Identifier: MIT
--
-- A relay, an agent with its service, and the visitors, each on a machine of
-- its own: three namespaces, and a cable on either side of the relay.
--
--   visitors 192.0.2.2 ──front── 192.0.2.1 relay 198.51.100.1 ──back──
--   198.51.100.2 agent, service
--
-- Visitors and the service are sockets of the test.

local h = require("harness")
local netns = require("netns")
local sys = h.sys

local machines = {}

local Machines = {}
Machines.__index = Machines

local FRONT <const>, BACK <const> = "192.0.2.1", "198.51.100.1"

-- A link whose packets are as large as the wire's: one that is lost is one.
local function lay(from, to, name, address, others)
  from:link(to, name, address .. "/24", others .. "/24")
  for _, space in ipairs({ from, to }) do
    space:run("ip", "link", "set", name, "gso_max_segs", "1")
  end
end

local function with(options, extra)
  local copy = {}
  for _, list in ipairs({ options or {}, extra }) do
    for key, value in pairs(list) do
      copy[key] = value
    end
  end
  return copy
end

-- open{mode=, pool=N, relay={ARGUMENT, …}, expose={ARGUMENT, …},
--      listen={OPTIONS of the service}}
function machines.open(options)
  local self = setmetatable({ mode = options.mode }, Machines)
  self.outside = netns.new_to_enter()
  self.middle = netns.new_to_enter()
  self.home = netns.new_to_enter()
  lay(self.middle, self.outside, "front", FRONT, "192.0.2.2")
  lay(self.middle, self.home, "back", BACK, "198.51.100.2")
  self.listener = self.home:call(sys.listen, options.listen)
  self.relay = h.start_relay(with(options.relay, { inside = self.middle,
    mode = options.mode }))
  self.agent = h.start_expose(self.relay, self.listener, with(options.expose, {
    inside = self.home, mode = options.mode, relay_host = BACK }))
  return self
end

function Machines:visit(options)
  return self.outside:call(h.connect, self.agent.port,
    with(options, { host = FRONT }))
end

-- A visitor and the end of it at the service.
function Machines:join(options)
  local visitor = self:visit(options)
  local served, why = self.listener:accept(h.seconds(20))
  if not served then
    error("the visitor did not come through: " .. why, 2)
  end
  return visitor, served
end

-- Ends for the pump: so many streams both ways at once, no two of them alike.
function Machines:streams(count, bytes)
  local ends = {}
  for i = 1, count do
    local visitor, served = self:join()
    local out, back = 2 * i, 2 * i + 1
    table.insert(ends, { visitor, send = bytes, send_seed = out, fin = true,
      recv = bytes, recv_seed = back, eof = true })
    table.insert(ends, { served, send = bytes, send_seed = back, fin = true,
      recv = bytes, recv_seed = out, eof = true })
  end
  return ends
end

-- The agent's cable is drawn at its end, and put back.
function Machines:cut()
  self.home:set_link("back", false)
end

function Machines:mend()
  self.home:set_link("back", true)
end

-- Somewhere on the way nothing is passed on any more, and again: no kernel is
-- told.
function Machines:block()
  self.home:lose("back", 100)
  self.middle:lose("back", 100)
end

function Machines:unblock()
  self.home:lose_none("back")
  self.middle:lose_none("back")
end

-- So many of 100 packets are lost on each link, either way.
function Machines:lose(percent)
  self:each_end("lose", percent)
end

-- How many were, on each way.
function Machines:lost()
  return self:each_end("lost")
end

-- Calls a method of either end of each link; a list of its results.
function Machines:each_end(name, ...)
  local results = {}
  for _, at in ipairs({ { self.outside, "front" }, { self.middle, "front" },
      { self.middle, "back" }, { self.home, "back" } }) do
    table.insert(results, at[1][name](at[1], at[2], ...) or false)
  end
  return results
end

-- What the relay's own sockets hold, as it is alone on its machine: the most
-- of one, {received=, queued=} in bytes of the kernel's memory and {unsent=} of
-- the stream; and how much all have of the kernel's memory.
function Machines:relay_memory()
  h.need("ss")
  local most, all = { received = 0, queued = 0, unsent = 0 }, 0
  local text = self.middle:run("ss", "-HOtanmi")
  for received, queued, rest in text:gmatch(
    "skmem:%(r(%d+),rb%d+,t%d+,tb%d+,f%d+,w(%d+)([^\n]*)") do
    all = all + received + queued
    for key, value in pairs({ received = received, queued = queued,
        unsent = rest:match(" notsent:(%d+)") or 0 }) do
      most[key] = math.max(most[key], math.tointeger(value))
    end
  end
  return most, all
end

return machines
