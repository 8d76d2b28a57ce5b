-- SPDX-License-Identifier: MIT
--
-- An error whose text never comes.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    error(setmetatable({}, { __tostring = function() while true do end end }))
  end,
}
