-- SPDX-License-Identifier: MIT
--
-- Lets everybody in and tells of each visitor: the smallest useful policy.

local relay = require "relay"

return {
  visitor = function(conn, agents)
    relay.log("info", "%s visits port %d, %d agents are there", conn.addr,
      conn.listen_port, #agents)
  end,

  close = function(conn)
    relay.log("info", "%s has left after %.1f s: %d bytes in, %d out, %s",
      conn.addr, conn.duration, conn.bytes_in, conn.bytes_out, conn.reason)
  end,
}
