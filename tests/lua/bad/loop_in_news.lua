-- SPDX-License-Identifier: MIT
--
-- No hook that is told of something returns.
-- end: served
-- says: hook=open error=
-- says: hook=close error=
-- says: of CPU time

local relay = require "relay"

return {
  open = function(conn)
    if conn.addr == "127.0.0.66" then while true do end end
  end,
  close = function(conn)
    if conn.addr == "127.0.0.66" then while true do end end
  end,
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    return true
  end,
}
