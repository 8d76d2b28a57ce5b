-- SPDX-License-Identifier: MIT
--
-- A chain of closures without end.
-- end: denied
-- says: hook=visitor error=
-- options: --script-memory 8M --script-budget 1s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local f
    while true do
      local g = f
      f = function() return g end
    end
  end,
}
