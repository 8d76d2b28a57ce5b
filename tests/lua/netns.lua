-- SPDX-License-Identifier: MIT
--
-- Network namespaces for tests. Each is held by a process of its own and has
-- no name, so it and its links go when that process does, whatever happens.

local h = require("harness")

local netns = {}

local Space = {}
Space.__index = Space

local flags = h.sys.uid() == 0 and { "-n" } or
  { "-U", "-n", "--preserve-credentials" }

local function start_holder()
  h.need("unshare", "nsenter", "ip")
  local new = h.sys.uid() == 0 and "-n" or "-rn"
  local holder = h.start({ "unshare", new, "sh", "-c",
    "ip link set lo up && echo ready && exec sleep 1000", name = "namespace" })
  if holder:read_line(h.seconds(5)) ~= "ready" then
    h.skip("network namespaces are not permitted here: " ..
      (holder:log():match("[^\n]+") or "?"))
  end
  return holder
end

-- A namespace with nothing but loopback, or the test is skipped.
function netns.new()
  return setmetatable({ holder = start_holder() }, Space)
end

-- As `new`, for a test that has sockets of its own inside (Space:call).
function netns.new_to_enter()
  local space = netns.new()
  local _, why = space:call(function() end)
  if why then
    h.skip("the test may not enter a network namespace here: " .. why)
  end
  return space
end

-- A command line as it is to be run inside.
function Space:inside(command)
  local line = { "nsenter", "-t", tostring(self.holder:pid()) }
  for _, list in ipairs({ flags, command }) do
    table.move(list, 1, #list, #line + 1, line)
  end
  for key, value in pairs(command) do
    if type(key) == "string" then
      line[key] = value
    end
  end
  line.name = command.name or command[1]:match("[^/]+$")
  return line
end

-- Calls a function whose sockets are to be inside, and returns what it does.
function Space:call(action, ...)
  return h.sys.inside(tostring(self.holder:pid()), action, ...)
end

function Space:start(command)
  return h.start(self:inside(command))
end

function Space:run(...)
  return h.output_of(self:inside({ ... }))
end

-- Joins two by a veth link: `name` in each, with these addresses ("A/24").
function Space:link(other, name, address, others)
  if h.sys.uid() ~= 0 then
    h.skip("only root can join two network namespaces")
  end
  self:run("ip", "link", "add", name, "type", "veth", "peer", "name", name,
    "netns", tostring(other.holder:pid()))
  for space, own in pairs({ [self] = address, [other] = others }) do
    space:run("ip", "address", "add", own, "dev", name)
    space:run("ip", "link", "set", name, "up")
  end
end

-- Cuts a link at this end, or mends it.
function Space:set_link(name, up)
  self:run("ip", "link", "set", name, up and "up" or "down")
end

-- Loses a share of the packets that arrive by a link: neither kernel is told.
function Space:lose(name, percent)
  local some = percent < 100 and
    ("numgen random mod 100 < %d "):format(percent) or ""
  h.need("nft")
  self:run("nft", ("table inet loss-%s { chain input { " ..
    "type filter hook prerouting priority 0; iifname %s %scounter drop; }; }")
    :format(name, name, some))
end

function Space:lose_none(name)
  self:run("nft", "delete", "table", "inet", "loss-" .. name)
end

-- How many were lost.
function Space:lost(name)
  return math.tointeger(self:run("nft", "list", "table", "inet",
    "loss-" .. name):match("counter packets (%d+)"))
end

-- Bounds what leaves by a link to a rate, as tc spells it.
function Space:narrow(name, rate)
  h.need("tc")
  self:run("tc", "qdisc", "replace", "dev", name, "root", "tbf", "rate", rate,
    "burst", "10kb", "latency", "100ms")
end

function Space:widen(name)
  self:run("tc", "qdisc", "del", "dev", name, "root")
end

return netns
