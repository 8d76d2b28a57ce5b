-- SPDX-License-Identifier: MIT
--
-- Message handlers that never return, for an error and for the end of time.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    xpcall(error, function() while true do end end)
    xpcall(function() while true do end end, function() while true do end end)
  end,
}
