-- SPDX-License-Identifier: MIT
--
-- Each agent may move so many bytes a day, both ways together. They are
-- counted every second while they move; when an agent is over, its visitors are
-- cut off, and new ones are denied until the next day.
--
--   relay 8080 --script scripts/quota.lua
--   expose relay.example 8080 3000 --name shop
--
-- To change: the number of bytes. Agents of one name share it. The counts are
-- kept over a reload (SIGHUP), not over the end of the relay.

local relay = require "relay"

local QUOTA = 10 << 30 -- bytes
local TWO_DAYS <const> = 2 * 24 * 3600

local live = {} -- the id of a conn: { name = its agent's, bytes = counted }

local function key_of(name)
  return ("moved:%s:%s"):format(os.date("%Y-%m-%d"), name)
end

local function is_over(name)
  return (relay.kv.get(key_of(name)) or 0) >= QUOTA
end

-- Adds what a conn has moved since it was counted last; false: nothing is known
-- of it yet.
local function count(conn)
  local entry = live[conn.id]
  if not entry then
    local agent = conn.agent
    if not agent then
      return false
    end
    entry = { name = agent.name, bytes = 0 }
    live[conn.id] = entry
  end
  local bytes = conn.bytes_in + conn.bytes_out
  relay.kv.incr(key_of(entry.name), bytes - entry.bytes, TWO_DAYS)
  entry.bytes = bytes
  return true
end

return {
  start = function(prev)
    live = prev and prev.live or {}
  end,

  save = function()
    return { live = live }
  end,

  visitor = function(_, agents)
    for _, agent in ipairs(agents) do
      if not is_over(agent.name) then
        return agent
      end
    end
    if #agents > 0 then
      return false, "the quota of today is used up"
    end
  end,

  open = count,

  tick = function()
    for _, conn in ipairs(relay.conns()) do
      if count(conn) and is_over(live[conn.id].name) then
        conn:close("the quota of today is used up")
      end
    end
  end,

  close = function(conn)
    count(conn)
    live[conn.id] = nil
  end,
}
