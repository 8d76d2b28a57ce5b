-- SPDX-License-Identifier: MIT
--
-- No hook is.
-- end: served
-- says: yield_in_every_hook.lua:11: a hook cannot yield
-- says: a hook cannot yield

local relay = require "relay"

return {
  open = function() coroutine.yield() end,
  close = function() coroutine.yield() end,
  tick = function() coroutine.yield() end,
  agent_gone = function() coroutine.yield() end,
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    return true
  end,
}
