-- SPDX-License-Identifier: MIT
--
-- The store is asked to hold more than it may.
-- end: denied
-- says: relay.kv is full
-- options: --script-budget 1s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    for i = 1, 1e9 do relay.kv.set("k" .. i, ("v"):rep(1e5)) end
  end,
}
