-- SPDX-License-Identifier: MIT
--
-- The systems of one load, side by side, all with the same backend, and how
-- they take turns: in each round every system once, in an order drawn anew, so
-- that whatever slows the machine slows them all, and nobody always comes after
-- the same one.

local h = require("harness")
local scaffold = require("scaffold")

local field = {}

local Field = {}
Field.__index = Field

-- Why a system could not go on, in a line.
local function reason_of(failure)
  return tostring(failure):gsub("^[^ ]*:%d+: ", ""):match("[^\n]*"):sub(1, 90)
end

-- As pcall; but whoever wants the whole to end is heard.
function field.try(call, ...)
  local ok, why = pcall(call, ...)
  if not ok and tostring(why):find("interrupted!$") then
    error("interrupted", 0)
  end
  return ok, why
end

-- The same list in an order drawn anew.
function field.drawn(list)
  local copy = {}
  for _, item in ipairs(list) do
    table.insert(copy, math.random(#copy + 1), item)
  end
  return copy
end

local function stands_for(entry, load)
  for _, name in ipairs(entry.only or { load }) do
    if name == load then
      return true
    end
  end
  return false
end

-- open(RUN, LOAD, {backend=PORT, delay=MS, only=FUNCTION(ENTRY)}): starts all
-- systems of the run; one that cannot be started is noted and left out.
function field.open(run, load, options)
  local self = setmetatable({ run = run, load = load, places = {} }, Field)
  for _, entry in ipairs(run.systems) do
    if stands_for(entry, load) and
      (not options.only or options.only(entry)) then
      local s = scaffold.new({ backend = options.backend,
        delay = options.delay, material = run.material })
      local started, port = field.try(entry.start, s)
      if started then
        table.insert(self.places, { entry = entry, scaffold = s, port = port })
        run.recipes[entry.name] = run.recipes[entry.name] or s.recipe
      else
        s:close()
        run:say("%s: not started: %s", entry.name, reason_of(port))
        run.results:add(load, options.delay or "", entry.name, 0, "failed",
          reason_of(port))
      end
    end
  end
  h.sys.sleep(0.5)
  return self
end

-- measure(PLACE, RECORD), where RECORD(metric, value) keeps a number; of all
-- systems, or those that only(ENTRY) lets pass. Three failures of a system in a
-- case, and its turns are over.
function Field:rounds(count, case, measure, only)
  local failures, before = {}, self.run.results:last_round(self.load, case)
  for round = before + 1, before + count do
    for _, place in ipairs(field.drawn(self.places)) do
      local name = place.entry.name
      if (failures[name] or 0) < 3 and (not only or only(place.entry)) then
        local ok, why = field.try(measure, place, function(metric, value)
          self.run.results:add(self.load, case, name, round, metric, value)
        end)
        if not ok then
          failures[name] = (failures[name] or 0) + 1
          self.run:say("%s: %s, %s: %s", name, self.load, case, reason_of(why))
          self.run.results:add(self.load, case, name, round, "failed",
            reason_of(why))
        end
      end
    end
  end
end

function Field:close()
  for _, place in ipairs(self.places) do
    place.scaffold:close()
  end
end

return field
