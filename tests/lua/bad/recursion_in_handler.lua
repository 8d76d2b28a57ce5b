-- SPDX-License-Identifier: MIT
--
-- A message handler that fails, and whose failure is handled by itself.
-- end: denied
-- says: handled

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function handle() error("again") end
    assert(not xpcall(error, handle))
    assert(not xpcall(error, error))
    error("handled")
  end,
}
