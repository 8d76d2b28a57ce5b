-- SPDX-License-Identifier: MIT
--
-- Every tick is endless.
-- end: served
-- says: hook=tick error=
-- says: of CPU time

local relay = require "relay"

return {
  tick = function() while true do end end,
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    return true
  end,
}
