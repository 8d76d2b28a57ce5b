-- SPDX-License-Identifier: MIT
--
-- What was measured, number by number, as lines of a file:
--
--   LOAD  CASE  SYSTEM  ROUND  METRIC  VALUE
--
-- and facts, which have a LOAD of "fact" and no round. A value that is no
-- number says why there is none. Nothing here knows what the numbers mean.

local results = {}

local Results = {}
Results.__index = Results

function results.new()
  return setmetatable({ rows = {} }, Results)
end

-- Fields fit on a line, and stand between tabs.
local function clean(value)
  return type(value) == "string" and (value:gsub("%c+", " ")) or value
end

function Results:add(load, case, system, round, metric, value)
  local row = { load = clean(load), case = clean(tostring(case)),
    system = clean(system), round = round, metric = clean(metric),
    value = clean(value) }
  table.insert(self.rows, row)
  if self.file then
    self:write(row)
  end
end

function Results:write(row)
  local value = row.value
  self.file:write(table.concat({ row.load, row.case, row.system, row.round,
    row.metric, math.type(value) == "float" and ("%.9g"):format(value) or
    value }, "\t"), "\n")
  self.file:flush()
end

-- From here on each number is kept in a file as well, with those so far.
function Results:keep(path)
  self.file = assert(io.open(path, "w"))
  for _, row in ipairs(self.rows) do
    self:write(row)
  end
end

function results.load(path)
  local self = results.new()
  for line in io.lines(path) do
    local load, case, system, round, metric, value = line:match(
      "^([^\t]*)\t([^\t]*)\t([^\t]*)\t(%d+)\t([^\t]*)\t(.*)$")
    if not load then
      error(path .. ": not a line of results: " .. line, 0)
    end
    self:add(load, case, system, math.tointeger(round), metric,
      load ~= "fact" and tonumber(value) or value)
  end
  return self
end

-- Forgets a load, which is to be measured anew.
function Results:drop(load)
  local rows = {}
  for _, row in ipairs(self.rows) do
    if row.load ~= load then
      table.insert(rows, row)
    end
  end
  self.rows = rows
end

-- The last round of a load's case; 0 where there was none.
function Results:last_round(load, case)
  local last = 0
  for _, row in ipairs(self.rows) do
    if row.load == load and row.case == tostring(case) then
      last = math.max(last, row.round)
    end
  end
  return last
end

-- ---- facts ------------------------------------------------------------------

function Results:tell(name, value)
  for i = #self.rows, 1, -1 do
    if self.rows[i].load == "fact" and self.rows[i].case == name then
      table.remove(self.rows, i)
    end
  end
  self:add("fact", name, "", 0, "", value)
end

function Results:fact(name)
  for _, row in ipairs(self.rows) do
    if row.load == "fact" and row.case == name then
      return row.value
    end
  end
end

-- ---- questions --------------------------------------------------------------

local function matches(row, load, case, system, metric)
  return row.load == load and (not case or row.case == tostring(case)) and
    (not system or row.system == system) and
    (not metric or row.metric == metric)
end

-- The numbers of all rounds in which there is one, {[ROUND] = VALUE}.
function Results:rounds(load, case, system, metric)
  local values = {}
  for _, row in ipairs(self.rows) do
    if matches(row, load, case, system, metric) and
      type(row.value) == "number" then
      values[row.round] = row.value
    end
  end
  return values
end

-- The same as a list.
function Results:values(load, case, system, metric)
  local list = {}
  for _, value in pairs(self:rounds(load, case, system, metric)) do
    table.insert(list, value)
  end
  return list
end

-- Two systems' numbers of the rounds that both have: two lists.
function Results:pairs_of(load, case, metric, left, right)
  local lefts = self:rounds(load, case, left, metric)
  local over, under = {}, {}
  for round, value in pairs(self:rounds(load, case, right, metric)) do
    if lefts[round] then
      table.insert(over, lefts[round])
      table.insert(under, value)
    end
  end
  return over, under
end

-- The word that stands where a number would; nil where there is none.
function Results:word(load, case, system, metric)
  for _, row in ipairs(self.rows) do
    if matches(row, load, case, system, metric) and
      type(row.value) == "string" then
      return row.value
    end
  end
end

-- The different values of a field of a load's rows, as they came.
local function distinct(self, load, field)
  local list, seen = {}, {}
  for _, row in ipairs(self.rows) do
    if row.load == load and not seen[row[field]] then
      seen[row[field]] = true
      table.insert(list, row[field])
    end
  end
  return list
end

function Results:systems(load)
  return distinct(self, load, "system")
end

function Results:cases(load)
  return distinct(self, load, "case")
end

function Results:loads()
  local list, seen = {}, { fact = true }
  for _, row in ipairs(self.rows) do
    if not seen[row.load] then
      seen[row.load] = true
      table.insert(list, row.load)
    end
  end
  return list
end

return results
