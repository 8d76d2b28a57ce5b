-- SPDX-License-Identifier: MIT
--
-- A table that grows without end.
-- end: denied
-- says: hook=visitor error=

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local t = {}
    for i = 1, 1e9 do t[i] = { i } end
  end,
}
