-- SPDX-License-Identifier: MIT
--
-- Everything that can be done to a conn and an agent that are gone.
-- end: served
-- says: all are closed

local relay = require "relay"
local dead = {}

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local gone = { conn, agents[1] }
    if dead[1] == nil then
      dead = gone
      relay.spawn(function()
        repeat relay.sleep(0.01) until not conn.alive
        for _, name in ipairs { "addr", "id", "agent", "bytes_in", "reason" } do
          assert(not pcall(function() return conn[name] end), name)
        end
        for _, call in ipairs {
          function() conn:close() end, function() conn:tag("a", 1) end,
          function() conn:limit { idle = 1 } end, function() conn:peek(1) end,
        } do
          local ok, why = pcall(call)
          assert(not ok and why:find("connection is closed"), why)
        end
        conn.data = { conn }
        assert(conn.data[1] == conn and tostring(conn) and not conn.alive)
        print("all are closed")
      end)
    end
    return agents[1]
  end,
}
