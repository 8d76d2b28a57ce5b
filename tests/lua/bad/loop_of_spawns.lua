-- SPDX-License-Identifier: MIT
--
-- Spawns itself, for ever.
-- end: served

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function again() relay.spawn(again) end
    again()
  end,
}
