-- SPDX-License-Identifier: MIT
--
-- Lines of a megabyte, of no text, with all that a line cannot hold.
-- end: served
-- says: long long 
-- says: ...
-- says: two\nlines \xff\xfe \u001b[31m \u202e
-- options: --script-budget 1s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    relay.log("info", ("long "):rep(1e6))
    relay.log("warn", "%s", "\0 after a zero")
    relay.log("error", "two\nlines \xff\xfe \27[31m \u{202e}")
    print()
    print(nil, {}, conn, ("x"):rep(1e6))
    assert(not pcall(relay.log, "loud", "x"))
    assert(not pcall(relay.log, "info", "%d", "x"))
    assert(not pcall(relay.log, "info", "%y", "x"))
    return agents[1]
  end,
}
