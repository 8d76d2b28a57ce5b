-- SPDX-License-Identifier: MIT
--
-- An address that connects too often is not turned away at once, for it would
-- only come again: it is held, with nothing read and nothing said, for a
-- minute, and then turned away. Waiting costs others nothing.
--
--   relay 8080 --script scripts/tarpit.lua
--
-- To change: the numbers. `hook_visitor` is how long the relay lets a script
-- think about a visitor, so it is more than HOLD.

local relay = require "relay"

local A_MINUTE = 60 -- connections of one address
local HOLD = 60 -- seconds
local PLACES = 200 -- held at a time; each keeps a descriptor

local held = 0

return {
  options = { hook_visitor = "2m" },

  visitor = function(conn)
    if relay.kv.incr("came:" .. conn.addr, 1, 60) <= A_MINUTE then
      return true
    elseif held >= PLACES then
      return false, "too fast, and the tarpit is full"
    end
    held = held + 1
    -- Runs at the end of this function, and when the visitor gives up first.
    local _ <close> = setmetatable({}, {
      __close = function() held = held - 1 end,
    })
    relay.sleep(HOLD)
    return false, "too fast"
  end,
}
