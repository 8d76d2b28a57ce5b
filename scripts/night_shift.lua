-- SPDX-License-Identifier: MIT
--
-- One port, and by the time of day another agent behind it: "day" or "night".
-- At the hour the next visitors go to the other one; who is connected stays.
-- Where nobody of the shift is there, whoever is there helps out.
--
--   relay 8080 --script scripts/night_shift.lua
--   expose relay.example 8080 3000 --name day
--   expose relay.example 8080 3000 --name night
--
-- To change: the port and the hours, in the time zone of the relay (TZ).

local relay = require "relay"

local PORT = 8443
local DAY, NIGHT = "08:00:00", "20:00:00" -- when each begins; DAY is earlier

local last

local function shift_now()
  local time = os.date("%H:%M:%S")
  return time >= DAY and time < NIGHT and "day" or "night"
end

return {
  start = function()
    relay.listen { port = PORT }
  end,

  allocate = function()
    return PORT
  end,

  visitor = function(conn, agents)
    local shift = shift_now()
    conn:tag("shift", shift)
    for _, agent in ipairs(agents) do
      if agent.name == shift then
        return agent
      end
    end
  end,

  -- Every second, for the log alone: visitors look at the clock themselves.
  tick = function()
    local shift = shift_now()
    if shift ~= last then
      relay.log("info", "the %s shift has begun", shift)
      last = shift
    end
  end,
}
