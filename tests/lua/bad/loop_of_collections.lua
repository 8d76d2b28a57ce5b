-- SPDX-License-Identifier: MIT
--
-- Collects garbage for ever.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    while true do collectgarbage() end
  end,
}
