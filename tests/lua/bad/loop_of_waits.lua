-- SPDX-License-Identifier: MIT
--
-- Waits for ever, a moment at a time.
-- end: denied
-- says: reason=hook
-- options: --hook-visitor 300ms

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    while true do pcall(relay.sleep, 0) end
  end,
}
