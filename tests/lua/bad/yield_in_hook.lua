-- SPDX-License-Identifier: MIT
--
-- A hook is no generator.
-- end: denied
-- says: a hook cannot yield

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    coroutine.yield(agents[1])
  end,
}
