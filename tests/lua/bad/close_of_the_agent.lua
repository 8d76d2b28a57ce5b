-- SPDX-License-Identifier: MIT
--
-- Closes the agent that it then chooses.
-- end: served
-- also: victim

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    for _, agent in ipairs(relay.agents()) do
      if agent.name == "victim" then agent:close("chosen") return agent end
    end
    return agents[1]
  end,
}
