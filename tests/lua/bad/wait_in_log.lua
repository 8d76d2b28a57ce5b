-- SPDX-License-Identifier: MIT
--
-- Waits for a line of the log.
-- end: served
-- says: relay.sleep cannot wait here

local relay = require "relay"

return {
  log = function()
    coroutine.wrap(function() relay.sleep(1) end)()
  end,
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    return true
  end,
}
