-- SPDX-License-Identifier: MIT
--
-- A string that doubles.
-- end: denied
-- says: not enough memory

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local s = "x"
    while true do s = s .. s end
  end,
}
