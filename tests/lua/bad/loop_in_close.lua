-- SPDX-License-Identifier: MIT
--
-- A coroutine that runs out of time and has a variable to close, endlessly.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local closing = setmetatable({}, { __close = function()
      while true do end
    end })
    local function body()
      local _ <close> = closing
      while true do end
    end
    pcall(coroutine.wrap(body))
    local co = coroutine.create(body)
    coroutine.resume(co)
    coroutine.close(co)
    for _ = 1, 1e4 do end
  end,
}
