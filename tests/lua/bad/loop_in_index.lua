-- SPDX-License-Identifier: MIT
--
-- A field that is looked up for ever.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local t = setmetatable({}, { __index = function() while true do end end })
    return t.agent
  end,
}
