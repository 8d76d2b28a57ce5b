-- SPDX-License-Identifier: MIT
--
-- Metamethods that call themselves: a field, a text, a sum.
-- end: denied
-- says: C stack overflow
-- options: --script-budget 1s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local meta = {}
    local t = setmetatable({}, meta)
    meta.__index = function(_, key) return t[key .. "x"] end
    meta.__tostring = function() return tostring(t) end
    meta.__add = function() return t + t end
    assert(not pcall(function() return t.x end))
    assert(not pcall(tostring, t))
    return t + t
  end,
}
