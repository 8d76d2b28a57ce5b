-- SPDX-License-Identifier: MIT
--
-- Calls itself for ever, deeper and deeper.
-- end: denied
-- says: hook=visitor error=
-- options: --script-budget 1s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function f() return f() + 1 end
    return f()
  end,
}
