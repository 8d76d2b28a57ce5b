-- SPDX-License-Identifier: MIT
--
-- Numbers that are none.
-- end: denied
-- says: visitor returned a number

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    for _, n in ipairs { 0 / 0, 1 / 0, -1 / 0, -1, 1e300, "x", {} } do
      assert(not pcall(relay.sleep, n))
      assert(not pcall(relay.every, n, print))
      assert(not pcall(conn.limit, conn, { rate_in = n }))
      assert(not pcall(conn.limit, conn, { idle = n }))
      assert(not pcall(relay.kv.set, "k", 1, n))
      assert(not pcall(conn.peek, conn, n))
      assert(not pcall(relay.listen, { port = n }))
    end
    assert(not pcall(relay.every, 0, print))
    assert(not pcall(relay.listen, { port = 0 }))
    assert(not pcall(relay.listen, { port = 65536 }))
    assert(not pcall(relay.listen, { port = 80.5 }))
    return 0 / 0
  end,
}
