-- SPDX-License-Identifier: MIT
--
-- The hook itself has a variable whose closing never ends.
-- end: denied
-- says: of CPU time

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local _ <close> = setmetatable({}, { __close = function()
      while true do end
    end })
  end,
}
