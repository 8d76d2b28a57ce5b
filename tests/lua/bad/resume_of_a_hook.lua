-- SPDX-License-Identifier: MIT
--
-- Resumes and closes the coroutine of a hook: as it waits, and once it is over.
-- end: served
-- says: waits: false cannot resume a coroutine that waits
-- says: close: false cannot close a coroutine that waits
-- says: over: false cannot resume dead coroutine

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local co = coroutine.running()
    relay.spawn(function()
      print("waits:", coroutine.resume(co))
      print("close:", pcall(coroutine.close, co))
      relay.sleep(0.1)
      print("over:", coroutine.resume(co))
      print("dead:", pcall(coroutine.wrap, co))
    end)
    relay.sleep(0.05)
    return agents[1]
  end,
}
