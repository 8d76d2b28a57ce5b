-- SPDX-License-Identifier: MIT
--
-- Only agents on a list get an address, each by its name and from where it is
-- at home. A name is no secret: whoever can send from its home can be it.
--
--   relay 8080 --script scripts/agent_names.lua
--   expose relay.example 8080 3000 --name web
--
-- To change: the list. After a reload (SIGHUP) agents that are not on the new
-- one are ended, with their visitors.

local relay = require "relay"

local homes = {
  web = relay.cidr { "127.0.0.1", "::1", "10.1.0.0/16" },
  database = relay.cidr { "10.2.0.7", "2001:db8:2::7" },
}

-- The answer of `auth`: true, who it is; or false, why not.
local function judge(agent)
  local home = homes[agent.name]
  if not home then
    return false, ("no agent is called '%s'"):format(agent.name)
  elseif not home:has(agent.addr) then
    return false, ("'%s' is not at home"):format(agent.name)
  end
  return true, agent.name
end

return {
  start = function(prev)
    for _, agent in ipairs(prev and relay.agents() or {}) do
      local listed, why = judge(agent)
      if not listed then
        agent:close(why)
      end
    end
  end,

  save = function()
    return {}
  end,

  auth = judge,
}
