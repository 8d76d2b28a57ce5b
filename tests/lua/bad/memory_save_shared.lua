-- SPDX-License-Identifier: MIT
--
-- Saves tables within tables, each of them twice.
-- end: served
-- says: policy not reloaded reason="save returned a table with more than memory holds in it" hook=save
-- options: --script-memory 8M

local relay = require "relay"

return {
  save = function()
    local t = {}
    for _ = 1, 60 do t = { t, t } end
    return t
  end,
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    relay.reload()
  end,
}
