-- SPDX-License-Identifier: MIT
--
-- Wraps within wraps, each of which waits, yields and fails.
-- end: denied
-- says: bottom

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function deep(n)
      if n == 0 then relay.sleep(0) error("bottom") end
      local inner = coroutine.wrap(deep)
      relay.sleep(0)
      coroutine.yield(n)
      repeat coroutine.yield(inner(n - 1)) until false
    end
    local top = coroutine.wrap(deep)
    repeat top(20) until false
  end,
}
