-- SPDX-License-Identifier: MIT
--
-- Saves one long string four thousand times.
-- end: served
-- says: policy not reloaded reason="save returned a table with more than memory holds in it" hook=save

local relay = require "relay"

return {
  save = function()
    local s, t = ("x"):rep(1e6), {}
    for i = 1, 4000 do t[i] = s end
    return t
  end,
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    relay.reload()
  end,
}
