-- SPDX-License-Identifier: MIT
--
-- Agents in an order of preference behind one port: the first that is there
-- and well has all visitors. One whose service cannot be reached is benched
-- for a while, and then tried again by the next visitor.
--
--   relay 8080 --script scripts/failover.lua
--   expose relay.example 8080 5432 --name primary
--   expose relay.example 8080 5432 --name standby
--
-- To change: the port, the order, the numbers. Who is benched stays so over a
-- reload (SIGHUP).

local relay = require "relay"

local PORT = 5432
local ORDER = { "primary", "standby" }
local FAILURES = 2 -- in a row
local BENCH = 30 -- seconds

local chosen = {} -- the id of a conn: the name of its agent

return {
  start = function(prev)
    relay.listen { port = PORT }
    chosen = prev and prev.chosen or {}
  end,

  save = function()
    return { chosen = chosen }
  end,

  allocate = function()
    return PORT
  end,

  visitor = function(conn, agents)
    local by_name = {}
    for _, agent in ipairs(agents) do
      by_name[agent.name] = agent
    end
    for _, name in ipairs(ORDER) do
      if by_name[name] and not relay.kv.get("benched:" .. name) then
        chosen[conn.id] = name
        return by_name[name]
      end
    end
    -- All are benched: the relay takes one, which is better than nobody.
  end,

  -- Here it is known who serves; it need not be the one that was chosen.
  open = function(conn)
    chosen[conn.id] = conn.agent and conn.agent.name
  end,

  close = function(conn)
    local name = chosen[conn.id]
    chosen[conn.id] = nil
    if not name then
      return
    elseif conn.reason ~= "ECONNREFUSED" or conn.bytes_out > 0 then
      relay.kv.delete("failures:" .. name)
    elseif relay.kv.incr("failures:" .. name, 1, BENCH) >= FAILURES then
      relay.log("warn", "%s is benched: its service cannot be reached", name)
      relay.kv.set("benched:" .. name, 1, BENCH)
      relay.kv.delete("failures:" .. name)
    end
  end,
}
