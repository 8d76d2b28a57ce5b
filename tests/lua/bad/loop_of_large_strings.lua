-- SPDX-License-Identifier: MIT
--
-- Few instructions, each of which takes long.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    for _ = 1, 1e9 do
      local _ = ("x"):rep(5e6)
    end
  end,
}
