-- SPDX-License-Identifier: MIT
--
-- A hundred endless loops, all spawned at once.
-- end: served
-- says: hook=spawn error=
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    for _ = 1, 100 do
      relay.spawn(function() while true do end end)
    end
  end,
}
