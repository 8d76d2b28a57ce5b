-- SPDX-License-Identifier: MIT
--
-- A coroutine in a coroutine in a coroutine.
-- end: denied
-- says: hook=visitor error="./tests

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function f() return coroutine.wrap(f)() end
    return f()
  end,
}
