-- SPDX-License-Identifier: MIT
--
-- Waits in metamethods, where it may.
-- end: served

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function wait() relay.sleep(0.001) return true end
    local t = setmetatable({}, { __index = wait, __add = wait, __lt = wait,
                                 __call = wait, __concat = wait, __eq = wait })
    local closed
    assert(t.x and t + 1 and t < t and t() and t .. "" and t == setmetatable({},
      getmetatable(t)))
    do
      local _ <close> = setmetatable({}, { __close = function()
        relay.sleep(0.001)
        closed = true
      end })
    end
    assert(closed)
    for _ in (function(_, last) wait() return not last or nil end) do end
    return agents[1]
  end,
}
