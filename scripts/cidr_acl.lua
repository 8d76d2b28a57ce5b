-- SPDX-License-Identifier: MIT
--
-- Who may come from where: agents from a few networks, visitors from anywhere
-- but a few. Sets of networks are sorted, so they may be long.
--
--   relay 8080 --script scripts/cidr_acl.lua
--
-- To change: the two sets. After a reload (SIGHUP) newcomers are judged by the
-- new ones, and visitors from networks that are banned by then are cut off.

local relay = require "relay"

local agents = relay.cidr { "127.0.0.0/8", "::1", "10.0.0.0/8" }
local banned = relay.cidr { "192.0.2.0/24", "198.51.100.7", "2001:db8::/32" }

return {
  -- `prev` is what `save` returned; nil at the first start, when nobody can
  -- be there yet.
  start = function(prev)
    for _, conn in ipairs(prev and relay.conns() or {}) do
      if banned:has(conn.addr) then
        conn:close("a network that is banned now")
      end
    end
  end,

  save = function()
    return {}
  end,

  auth = function(agent)
    if not agents:has(agent.addr) then
      return false, "an agent from a strange network"
    end
    return true, agent.name
  end,

  visitor = function(conn)
    if banned:has(conn.addr) then
      return false, "a banned network"
    end
  end,
}
