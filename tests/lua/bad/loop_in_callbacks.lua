-- SPDX-License-Identifier: MIT
--
-- Callbacks of C functions that never return.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    pcall(string.gsub, "x", "x", function() while true do end end)
    pcall(table.sort, { 3, 2, 1 }, function() while true do end end)
  end,
}
