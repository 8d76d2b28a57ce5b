-- SPDX-License-Identifier: MIT
--
-- Every hook asks for a reload, those of a reload too.
-- end: served
-- says: reload in stop: nil a reload is under way

local relay = require "relay"

return {
  start = function() relay.reload() end,
  save = function() relay.reload() end,
  stop = function() print("reload in stop:", relay.reload()) end,
  close = function() relay.reload() end,
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    relay.reload()
  end,
}
