-- SPDX-License-Identifier: MIT
--
-- Runs the tests of some files, or those whose name holds a filter:
--
--   lua5.4 tests/lua/run.lua tests/lua/test_NAME.lua [FILTER ...]
--
-- A test file returns a table of functions named test_*. They run in the order
-- of the file, each within a time limit: `limit` seconds of the table (60), or
-- `limits.NAME`. A test's full name is lua/FILE.NAME. The last line is the sum.

local build = os.getenv("RELAY_TEST_BUILD") or "build"
local here = arg[0]:match("^(.*)/") or "."
package.cpath = build .. "/tests/?.so;" .. package.cpath
package.path = here .. "/?.lua;" .. package.path

local lu = require("luaunit")
local sys = require("sys")
local h = require("harness")

local files, filters = {}, {}
for _, argument in ipairs(arg) do
  if argument:find("%.lua$") then
    table.insert(files, argument)
  else
    table.insert(filters, argument)
  end
end

local function is_wanted(name)
  if #filters == 0 then
    return true
  end
  for _, filter in ipairs(filters) do
    if name:find(filter, 1, true) then
      return true
    end
  end
  return false
end

-- ---- what is printed --------------------------------------------------------

local Output = setmetatable({}, { __index = lu.genericOutput })
Output.__class__ = "Output"

function Output.new(runner)
  return setmetatable(lu.genericOutput.new(runner), { __index = Output })
end

function Output:startTest()
  self.began = sys.now()
end

function Output:endTest(node)
  local took = sys.now() - self.began
  if node:isSuccess() then
    print(("ok      %s (%.2f s)"):format(node.testName, took))
  elseif node:isSkipped() then
    print(("skipped %s: %s"):format(node.testName, node.msg or ""))
  else
    print(("FAILED  %s (%.2f s)"):format(node.testName, took))
    print(node.msg)
    print(node.stackTrace or "")
    if h.last_logs ~= "" then
      print(h.last_logs)
    end
  end
  io.stdout:flush()
end

-- ---- the tests of a file ----------------------------------------------------

local function sorted_names(tests)
  local names, lines = {}, {}
  for name, test in pairs(tests) do
    if type(test) == "function" and name:find("^test") then
      table.insert(names, name)
      lines[name] = debug.getinfo(test, "S").linedefined
    end
  end
  table.sort(names, function(a, b)
    if lines[a] ~= lines[b] then
      return lines[a] < lines[b]
    end
    return a < b
  end)
  return names
end

local function guarded(tests)
  local set_up, tear_down = tests.setUp, tests.tearDown
  function tests.setUp(self)
    h.setup()
    if set_up then
      set_up(self)
    end
  end
  function tests.tearDown(self)
    sys.watchdog(h.seconds(60))
    local ok, why = true, nil
    if tear_down then
      ok, why = pcall(tear_down, self)
    end
    local problems = h.teardown()
    sys.watchdog(0)
    if problems then
      h.last_logs = "after the test: " .. problems .. "\n" .. h.last_logs
    end
    if problems or not ok then
      lu.fail((problems or "") .. (ok and "" or "\n" .. tostring(why)))
    end
  end
end

local function limited(test, seconds)
  return function(self)
    sys.watchdog(h.seconds(2 * seconds)) -- for a machine that is busy
    test(self)
  end
end

local function add_file(list, path)
  local class = path:match("test_([%w_]+)%.lua$")
  local tests = assert(loadfile(path))()
  local limits = tests.limits or {}
  local limit = tests.limit or 60
  for _, name in ipairs(sorted_names(tests)) do
    if is_wanted(("lua/%s.%s"):format(class, name)) then
      table.insert(list, { ("%s.%s"):format(class, name), tests })
    end
    tests[name] = limited(tests[name], limits[name] or limit)
  end
  guarded(tests)
end

local function main()
  local list = {}
  for _, path in ipairs(files) do
    local ok, why = xpcall(add_file, debug.traceback, list, path)
    if not ok then
      print(path .. ": " .. why)
      print("0 passed, 1 failed")
      return 1
    end
  end
  if #list == 0 then
    print("0 passed, 0 failed")
    return 0
  end
  local runner = lu.LuaUnit.new()
  runner.outputType = Output
  runner:registerSuite()
  runner:internalRunSuiteByInstances(list)
  runner:unregisterSuite()
  local result = runner.result
  local sum = ("%d passed, %d failed"):format(
    result.successCount, result.notSuccessCount)
  if result.skippedCount > 0 then
    sum = ("%s, %d skipped"):format(sum, result.skippedCount)
  end
  print(sum)
  return result.notSuccessCount == 0 and 0 or 1
end

io.stdout:setvbuf("line")
local status = main()
h.forget_trust()
os.exit(status, true)
