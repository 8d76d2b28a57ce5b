-- SPDX-License-Identifier: MIT
--
-- Waits longer than a hook may.
-- end: denied
-- says: reason=hook
-- options: --hook-visitor 200ms

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    relay.sleep(1e8)
  end,
}
