-- SPDX-License-Identifier: MIT
--
-- At most so many connections of one address at a time, so many new ones in a
-- minute, and a rate for each. The counts survive a reload.

local relay = require "relay"

local AT_A_TIME = 3
local A_MINUTE = 30
local RATE = 1 << 20 -- bytes per second, each way
local IDLE = 300 -- seconds

local open = {}

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

  -- Told exactly once for each conn that `visitor` let in.
  close = function(conn)
    local left = open[conn.addr] - 1
    open[conn.addr] = left > 0 and left or nil
  end,
}
