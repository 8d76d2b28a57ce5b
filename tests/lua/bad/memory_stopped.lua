-- SPDX-License-Identifier: MIT
--
-- The collector is stopped.
-- end: served
-- options: --script-memory 4M --script-budget 1s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    collectgarbage("stop")
    local t
    for i = 1, 1e5 do t = { i } end
    return agents[1]
  end,
}
