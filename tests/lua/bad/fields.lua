-- SPDX-License-Identifier: MIT
--
-- Fields that are not there, and fields that cannot be set.
-- end: denied
-- says: conn has no field 'adr' (did you mean 'addr'?)

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    for _, key in ipairs { "adr", "__index", "metatable", 1, 0.5, print, {} } do
      assert(not pcall(function() return conn[key] end))
      assert(not pcall(function() conn[key] = 1 end))
    end
    assert(not pcall(function() conn.addr = "x" end))
    assert(not pcall(rawset, conn, "addr", "x"))
    assert(not pcall(setmetatable, conn, {}))
    assert(not pcall(setmetatable, {}, getmetatable(conn)))
    assert(not pcall(conn.close, agents))
    assert(not pcall(conn.tag, agents[1], "a", "b"))
    assert(not pcall(conn.peek, agents[1], 1))
    return conn.adr
  end,
}
