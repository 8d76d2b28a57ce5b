-- SPDX-License-Identifier: MIT
--
-- What is made is kept for ever: after a while nobody can be let in.
-- end: denied
-- others: denied
-- says: not enough memory
-- options: --script-memory 4M --script-budget 1s
-- tries: 8

local relay = require "relay"
local kept

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    for _ = 1, 1e6 do kept = { kept } end
  end,
}
