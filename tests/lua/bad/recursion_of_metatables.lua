-- SPDX-License-Identifier: MIT
--
-- A chain of __index that bites its tail.
-- end: denied
-- says: '__index' chain too long; possible loop

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local t = {}
    setmetatable(t, { __index = t })
    return t.x
  end,
}
