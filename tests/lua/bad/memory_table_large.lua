-- SPDX-License-Identifier: MIT
--
-- Large tables, made at once.
-- end: denied
-- says: not enough memory
-- options: --script-budget 1s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local t = {}
    for i = 1, 1e9 do
      t[i] = { ("x"):rep(1e6), table.unpack(t, 1, 200) }
    end
  end,
}
