-- SPDX-License-Identifier: MIT
--
-- Lets everybody in and tells of each visitor: the smallest useful policy.
--
--   relay 8080 --script scripts/allow_all.lua
--
-- To change: what is told; conn and agent have more fields than these.

local relay = require "relay"

return {
  visitor = function(conn, agents)
    relay.log("info", "%s visits port %d, agents there: %d", conn.addr,
      conn.listen_port, #agents)
  end,

  -- Once for each visitor that was let in.
  close = function(conn)
    relay.log("info", "%s has left after %.1f s: %d bytes in, %d out, %s",
      conn.addr, conn.duration, conn.bytes_in, conn.bytes_out, conn.reason)
  end,
}
