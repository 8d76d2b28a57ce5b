-- SPDX-License-Identifier: MIT
--
-- Shared ports that cannot be had.
-- end: served
-- says: taken: nil address already in use
-- says: far: nil
-- says: host must be a literal address

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    print("taken:", relay.listen { port = conn.listen_port })
    print("far:", relay.listen { port = 1, host = "192.0.2.1" })
    print("odd:", pcall(relay.listen, { port = 1, host = "no address" }))
    assert(not pcall(relay.listen))
    assert(not pcall(relay.listen, 80))
    assert(not pcall(relay.listen, { prot = 80 }))
    assert(not pcall(relay.listen, { port = 80, host = ("x"):rep(1e5) }))
    return agents[1]
  end,
}
