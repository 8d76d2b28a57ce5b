-- SPDX-License-Identifier: MIT
--
-- A hundred thousand functions, all spawned at once.
-- end: denied
-- says: hook=visitor error=
-- options: --script-memory 16M --script-budget 1s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    for _ = 1, 1e5 do relay.spawn(relay.sleep, 0) end
  end,
}
