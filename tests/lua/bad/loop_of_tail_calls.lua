-- SPDX-License-Identifier: MIT
--
-- Calls itself for ever, on one level.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function f() return f() end
    return f()
  end,
}
