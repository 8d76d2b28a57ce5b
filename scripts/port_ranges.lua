-- SPDX-License-Identifier: MIT
--
-- Each team has a range of ports. An agent is named TEAM/NAME and gets the
-- lowest port of the range that no name has; the name keeps it, so an agent
-- that is started anew is found where it was. Agents of one name share a port.
--
--   relay 8080 --script scripts/port_ranges.lua
--   expose relay.example 8080 3000 --name web/shop
--
-- To change: the ranges, and for how long a name that is away keeps its port
-- when its range is full. All is kept over a reload (SIGHUP).

local relay = require "relay"

local ranges = {
  web = { 8100, 8199 },
  db = { 8200, 8209 },
}
local KEEP = 24 * 3600 -- seconds; more than --grace

local names = {} -- a name: { port = PORT, seen = when it was last there }

-- A port of the range that no name has; else that of the name away longest.
local function find_port(range, taken)
  local owners, present, oldest = {}, {}, nil
  for name, place in pairs(names) do
    owners[place.port] = name
  end
  for _, agent in ipairs(relay.agents()) do
    present[agent.name] = true
  end
  for port = range[1], range[2] do
    local owner = owners[port]
    if not owner and not taken[port] then
      return port
    elseif owner and not present[owner] and
      names[owner].seen < (oldest and names[oldest].seen or math.huge) then
      oldest = owner
    end
  end
  if oldest and relay.now() - names[oldest].seen >= KEEP then
    local port = names[oldest].port
    names[oldest] = nil
    return port
  end
end

return {
  start = function(prev)
    names = prev and prev.names or {}
  end,

  save = function()
    return { names = names }
  end,

  allocate = function(agent, want)
    local range = ranges[agent.name:match("^[^/]*")]
    if not range then
      return false, ("no ports for '%s'"):format(agent.name)
    end
    -- Asked again: what it was given turned out to be taken by a stranger.
    local taken = want.attempt > 1 and agent.data or {}
    local place = names[agent.name]
    local port = place and place.port
    if not port or port < range[1] or port > range[2] or taken[port] then
      port = find_port(range, taken)
    end
    if not port then
      return false, "all ports of the range are taken"
    end
    taken[port] = true
    agent.data = taken
    names[agent.name] = { port = port, seen = relay.now() }
    return { port = port, share = true }
  end,

  agent_gone = function(agent)
    if names[agent.name] then
      names[agent.name].seen = relay.now()
    end
  end,
}
