-- SPDX-License-Identifier: MIT
--
-- Catches itself for ever, then fails.
-- end: denied
-- says: deep enough

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function f() return pcall(f) end
    f()
    error("deep enough")
  end,
}
