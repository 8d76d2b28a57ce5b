-- SPDX-License-Identifier: MIT
--
-- Resumes itself, from within and from a coroutine of its own.
-- end: served
-- says: itself: false cannot resume non-suspended coroutine
-- says: outer: false cannot resume non-suspended coroutine
-- says: closed: false

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local co = coroutine.running()
    print("itself:", coroutine.resume(co))
    coroutine.wrap(function()
      print("outer:", coroutine.resume(co))
      print("closed:", pcall(coroutine.close, co))
    end)()
    return agents[1]
  end,
}
