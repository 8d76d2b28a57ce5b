-- SPDX-License-Identifier: MIT
--
-- An endless loop that catches its own end.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    while true do
      pcall(function() while true do end end)
    end
  end,
}
