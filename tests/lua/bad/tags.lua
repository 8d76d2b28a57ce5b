-- SPDX-License-Identifier: MIT
--
-- A hundred thousand tags, and one of a megabyte.
-- end: served
-- says: long: nil
-- says: many: nil
-- says: k1=1
-- options: --script-budget 5s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    print("long:", conn:tag("k", ("x"):rep(1e6)))
    conn:tag("\n\xff=\27[31m", "\n\xff=\27[31m \0 gone")
    for i = 1, 1e5 do conn:tag("k" .. i, i) end
    print("many:", conn:tag("one more", 1))
    return agents[1]
  end,
}
