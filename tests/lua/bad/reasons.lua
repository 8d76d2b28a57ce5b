-- SPDX-License-Identifier: MIT
--
-- A reason of a megabyte, with all that a line cannot hold.
-- end: denied
-- says: reason="why\n\xffxxxx

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    return false, "why\n\xff" .. ("x"):rep(1e6)
  end,
}
