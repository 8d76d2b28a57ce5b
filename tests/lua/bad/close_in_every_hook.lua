-- SPDX-License-Identifier: MIT
--
-- Closes what each hook is about.
-- end: denied
-- says: in visitor
-- says: close in close: false
-- also: peek

local relay = require "relay"

return {
  open = function(conn)
    if conn.addr == "127.0.0.67" then conn:close("in open") end
  end,
  close = function(conn)
    print("close in close:", pcall(conn.close, conn))
  end,
  agent_gone = function(agent)
    print("close in agent_gone:", pcall(agent.close, agent))
  end,
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    pcall(conn.close, {}, "odd")
    conn:close("in visitor")
    pcall(relay.sleep, 1)
    return agents[1]
  end,
}
