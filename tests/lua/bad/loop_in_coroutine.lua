-- SPDX-License-Identifier: MIT
--
-- Endless loops in coroutine after coroutine.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    while true do
      coroutine.resume(coroutine.create(function() while true do end end))
    end
  end,
}
