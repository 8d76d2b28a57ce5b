-- SPDX-License-Identifier: MIT
--
-- Coroutines without end, all kept.
-- end: denied
-- says: hook=visitor error=
-- options: --script-memory 8M --script-budget 1s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local t = {}
    while true do t[#t + 1] = coroutine.create(print) end
  end,
}
