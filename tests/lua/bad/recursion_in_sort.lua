-- SPDX-License-Identifier: MIT
--
-- A comparator that sorts.
-- end: denied
-- says: C stack overflow

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function less() table.sort({ 1, 2, 3 }, less) return false end
    less()
  end,
}
