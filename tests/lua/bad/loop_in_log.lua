-- SPDX-License-Identifier: MIT
--
-- No line of the log is ever ready.
-- end: served
-- says: hook=log error=
-- says: of CPU time

local relay = require "relay"

return {
  log = function() while true do end end,
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    return true
  end,
}
