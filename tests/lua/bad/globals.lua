-- SPDX-License-Identifier: MIT
--
-- A misspelt name.
-- end: denied
-- says: assignment to undeclared variable 'retrun'

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    retrun = agents[1]
  end,
}
