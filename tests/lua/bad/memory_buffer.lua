-- SPDX-License-Identifier: MIT
--
-- One long string out of many.
-- end: denied
-- says: not enough memory
-- options: --script-memory 16M --script-budget 1s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local t = {}
    for i = 1, 1e4 do t[i] = ("x"):rep(1e4) end
    return table.concat(t)
  end,
}
