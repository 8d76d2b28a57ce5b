-- SPDX-License-Identifier: MIT
--
-- Timers without end.
-- end: denied
-- says: relay.every: at most 1000 timers

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    while true do relay.every(0.001, function() end) end
  end,
}
