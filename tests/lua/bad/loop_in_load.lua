-- SPDX-License-Identifier: MIT
--
-- A chunk that never ends.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    load(function() return " " end)
  end,
}
