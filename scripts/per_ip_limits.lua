-- SPDX-License-Identifier: MIT
--
-- At most so many connections of one address at a time, so many new ones in a
-- minute, and a rate for each.
--
--   relay 8080 --script scripts/per_ip_limits.lua
--
-- To change: the numbers. Counts are kept over a reload (SIGHUP).

local relay = require "relay"

local AT_A_TIME = 20
local A_MINUTE = 120
local RATE = 1 << 20 -- bytes per second, each way
local IDLE = 300 -- seconds

local open = {} -- an address: its connections; no entry for none

return {
  start = function(prev)
    open = prev and prev.open or {}
  end,

  save = function()
    return { open = open }
  end,

  visitor = function(conn)
    local addr = conn.addr
    if (open[addr] or 0) >= AT_A_TIME then
      return false, "too many connections of one address"
    end
    if relay.kv.incr("new:" .. addr, 1, 60) > A_MINUTE then
      return false, "too many connections in a minute"
    end
    conn:limit { rate_in = RATE, rate_out = RATE, idle = IDLE }
    open[addr] = (open[addr] or 0) + 1
  end,

  -- Exactly once for each that `visitor` let in. One that another script let
  -- in was not counted.
  close = function(conn)
    local left = (open[conn.addr] or 0) - 1
    open[conn.addr] = left > 0 and left or nil
  end,
}
