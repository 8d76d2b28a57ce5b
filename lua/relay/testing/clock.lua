-- SPDX-License-Identifier: MIT
--
-- Time that moves only when a test says so, in whole milliseconds. What is due
-- runs in the order of its time, and of its making within one instant.

local clock = {}
clock.__index = clock

-- Turns in one instant. A policy that spawns without end gets no more.
local TURNS_MAX = 100

function clock.new(ms)
  return setmetatable({ now_ms = ms or 1000000, made = 0, timers = {} }, clock)
end

-- Calls `run` after so long; the timer, for cancel.
function clock:after(ms, run)
  self.made = self.made + 1
  local timer = { at_ms = self.now_ms + ms, number = self.made, run = run }
  self.timers[timer] = true
  return timer
end

function clock:cancel(timer)
  if timer then
    self.timers[timer] = nil
  end
end

-- When the next timer is due, or nil.
function clock:next_ms()
  local next_ms
  for timer in pairs(self.timers) do
    next_ms = math.min(next_ms or timer.at_ms, timer.at_ms)
  end
  return next_ms
end

-- Those that are due now, and were made before.
function clock:run_due()
  local due = {}
  for timer in pairs(self.timers) do
    if timer.at_ms <= self.now_ms then
      table.insert(due, timer)
    end
  end
  table.sort(due, function(a, b)
    if a.at_ms ~= b.at_ms then
      return a.at_ms < b.at_ms
    end
    return a.number < b.number
  end)
  for _, timer in ipairs(due) do
    if self.timers[timer] then
      self.timers[timer] = nil
      timer.run()
    end
  end
end

-- Lets so much time pass. `turn` runs what waits for no time; it returns true
-- while there is more, and when what is outside of this clock is due.
function clock:advance(ms, turn)
  local end_ms, turns = self.now_ms + ms, 0
  while true do
    self:run_due()
    local more, outside_ms = turn()
    turns = turns + 1
    local next_ms = self:next_ms()
    if outside_ms then
      next_ms = math.min(next_ms or outside_ms, outside_ms)
    end
    if more or (next_ms and next_ms <= self.now_ms) then
      next_ms = turns < TURNS_MAX and self.now_ms or self.now_ms + 1
    end
    if not next_ms or next_ms > end_ms then
      break
    end
    if next_ms > self.now_ms then
      self.now_ms, turns = next_ms, 0
    end
  end
  self.now_ms = end_ms
end

return clock
