-- SPDX-License-Identifier: MIT
--
-- A text that nests deeper than the parser goes.
-- end: denied
-- says: C stack overflow

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    assert(load(("("):rep(1e5) .. "1" .. (")"):rep(1e5)))
  end,
}
