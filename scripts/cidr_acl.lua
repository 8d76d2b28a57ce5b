-- SPDX-License-Identifier: MIT
--
-- Who may come from where: agents from the office, visitors from anywhere but
-- a few networks. Networks are looked up in sorted sets, so lists may be long.

local relay = require "relay"

local agents = relay.cidr { "127.0.0.0/8", "::1", "10.0.0.0/8" }
local banned = relay.cidr { "192.0.2.0/24", "198.51.100.7", "2001:db8::/32",
                            "127.0.0.66" }

return {
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
