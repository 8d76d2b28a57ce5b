-- SPDX-License-Identifier: MIT
--
-- Closes a coroutine that waits, drops one, and leaves one to never end.
-- end: served
-- says: cannot close a coroutine that waits
-- says: resume: false cannot resume a coroutine that waits

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local co = coroutine.create(relay.sleep)
    relay.spawn(function() coroutine.resume(co, 0.05) end)
    relay.spawn(coroutine.wrap(function() relay.sleep(1e8) end))
    relay.sleep(0.01)
    print("close:", pcall(coroutine.close, co))
    print("resume:", coroutine.resume(co))
    co = nil
    collectgarbage()
    relay.sleep(0.1)
    return agents[1]
  end,
}
