-- SPDX-License-Identifier: MIT
--
-- Calls itself by way of a C function.
-- end: denied
-- says: C stack overflow

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function f(s) return (s:gsub(".", f)) end
    f("x")
  end,
}
