-- SPDX-License-Identifier: MIT
--
-- Somebody on the wire between agents and their relay: passes every byte on as
-- it is, and keeps a copy. It runs when the test turns it.

local h = require("harness")
local sys = h.sys

local tap = {}

local Tap = {}
Tap.__index = Tap

function tap.open(relay)
  return setmetatable({
    relay = relay,
    listener = assert(sys.listen()),
    ways = {},   -- {agent =, relay =}: the two sockets of a connection
    sent = {},   -- what agents sent, one text for each connection
    answers = {} -- what the relay sent there
  }, Tap)
end

function Tap:port()
  return self.listener:port()
end

function Tap:accept()
  local agent = self.listener:accept(0)
  if agent then
    local way = { agent = agent, relay = h.connect(self.relay),
      index = #self.sent + 1 }
    self.ways[#self.ways + 1] = way
    self.sent[way.index], self.answers[way.index] = "", ""
  end
end

-- Passes on what one side has; false when the connection is over.
local function pass(from, to, keep)
  local bytes, why = from:recv(0)
  if bytes then
    keep(bytes)
    return to:send(bytes) ~= nil
  elseif why == "eof" then
    to:shutdown()
    return nil
  elseif why == "timeout" then
    return true
  end
  to:reset()
  return false
end

local function turn_way(self, way, side)
  local from = side == "agent" and way.agent or way.relay
  local to = side == "agent" and way.relay or way.agent
  local copies = side == "agent" and self.sent or self.answers
  local alive = pass(from, to, function(bytes)
    copies[way.index] = copies[way.index] .. bytes
  end)
  if alive == false then
    from:close()
    to:close()
    way.over = true
  elseif alive == nil then
    way[side .. "_ended"] = true
    if way.agent_ended and way.relay_ended then
      way.agent:close()
      way.relay:close()
      way.over = true
    end
  end
end

-- Passes on what is there, or comes soon.
function Tap:turn()
  local sockets, owners = { self.listener }, {}
  for _, way in ipairs(self.ways) do
    for _, side in ipairs({ "agent", "relay" }) do
      if not way[side .. "_ended"] then
        table.insert(sockets, way[side])
        owners[way[side]] = { way, side }
      end
    end
  end
  for _, socket in ipairs(sys.poll(sockets, "r", 0.01)) do
    local owner = owners[socket]
    if not owner then
      self:accept()
    elseif not owner[1].over then
      turn_way(self, owner[1], owner[2])
    end
  end
  for i = #self.ways, 1, -1 do
    if self.ways[i].over then
      table.remove(self.ways, i)
    end
  end
end

function Tap:turn_until(what, ask)
  return h.wait_until(what, function()
    self:turn()
    return ask()
  end)
end

-- Waits for an agent's address, with `port` set to it.
function Tap:await_address(agent)
  local line = self:turn_until("an address is established", function()
    return (agent:read_line(0))
  end)
  agent.port = math.tointeger(line:match(", (%d+)%)$"))
end

-- All that was seen, both ways.
function Tap:seen()
  return table.concat(self.sent) .. table.concat(self.answers)
end

function Tap:close()
  for _, way in ipairs(self.ways) do
    way.agent:close()
    way.relay:close()
  end
  self.listener:close()
end

return tap
