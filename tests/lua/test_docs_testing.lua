-- SPDX-License-Identifier: MIT
--
-- The programs of docs/testing-policies.md: each block after a line
-- <!-- file: NAME --> is written into one folder, then each call of lua5.4 that
-- is shown is made there, and must print what is shown.

local lu = require("luaunit")
local h = require("harness")

local T = { limit = 60 }

local function document()
  return h.read_file(h.source .. "docs/testing-policies.md")
end

local function write_files(directory)
  local names = {}
  for name, text in document():gmatch(
    "\n<!%-%- file: (%S+) %-%->\n```lua\n(.-\n)```") do
    h.write_file(directory .. "/" .. name, text)
    names[name] = true
  end
  return names
end

local function absolute(path)
  return (h.output_of({ "realpath", path }):gsub("\n", ""))
end

-- Times differ.
local function without_times(text)
  return (text:gsub("in %d+%.%d+ seconds", "in some seconds"))
end

function T.test_what_is_shown_is_printed()
  local directory = h.tmpdir()
  local files = write_files(directory)
  local shown = 0
  for test, output in document():gmatch(
    "\n```console\n%$ lua5%.4 (%S+)\n(.-)```") do
    shown = shown + 1
    lu.assertTrue(files[test], test)
    local result = h.run({ "lua5.4", test, cwd = directory, env = {
      LUA_PATH = absolute(h.source .. "lua") .. "/?.lua;;" } })
    lu.assertEquals(result.stderr, "")
    lu.assertEquals(without_times(result.stdout), without_times(output))
    lu.assertEquals(result.status, 0)
  end
  lu.assertEquals(shown, 2)
end

-- A test that must fail says where the policy is at fault.
function T.test_a_failure_names_file_and_line()
  local directory = h.tmpdir()
  write_files(directory)
  h.write_file(directory .. "/policy.lua",
    "return {\n  visitor = function(conn)\n    return conn.adr\n  end,\n}\n")
  local result = h.run({ "lua5.4", "test_policy.lua", cwd = directory, env = {
    LUA_PATH = absolute(h.source .. "lua") .. "/?.lua;;" } })
  lu.assertEquals(result.status, 1)
  lu.assertStrContains(result.stdout, "policy.lua:3: conn has no field 'adr'" ..
    " (did you mean 'addr'?)")
end

function T.test_policies_pass_the_real_check_and_luacheck()
  h.need("luacheck")
  local directory = h.tmpdir()
  write_files(directory)
  h.write_file(directory .. "/redis.lua", "return {}")
  local config = h.read_file(directory .. "/.luacheckrc")
  h.write_file(directory .. "/.luacheckrc", (config:gsub(
    "/usr/local/share/lua/5.4/", absolute(h.source .. "lua") .. "/")))
  for _, name in ipairs({ "policy.lua", "database.lua" }) do
    local result = h.run({ h.program("relay"), "--check", "--script",
      directory .. "/" .. name })
    lu.assertEquals({ result.status, result.stderr }, { 0, "" })
    result = h.run({ "luacheck", "--no-cache", name, cwd = directory })
    lu.assertEquals(result.status, 0, result.stdout)
  end
end

-- Each option, field and call that the page names is there.
function T.test_names()
  package.path = h.source .. "lua/?.lua;" .. package.path
  local testing = require("relay.testing")
  local path = h.write_file(h.tmpdir() .. "/policy.lua", "return {}")
  local w = testing.load(path, {})
  for name in document():gmatch("`w%.([%a_]+)") do
    lu.assertNotNil(w[name] or name == "stats", name)
  end
  local table_of_options = document():match("\n## Loading\n(.-)\n## ")
  local seen = 0
  for row in table_of_options:gmatch("\n| (`[^|]*`) |") do
    for name in row:gmatch("`([%a_]+)`") do
      seen = seen + 1
      local _, why = pcall(testing.load, path, { [name] = {} })
      lu.assertNotStrContains(tostring(why), "no option")
    end
  end
  lu.assertEquals(seen, #testing.options)
  local conn, agent = testing.conn(), testing.agent()
  for _, name in ipairs({ "limits", "tags", "peek", "closed" }) do
    lu.assertTrue(pcall(function() return conn[name] end), name)
  end
  lu.assertEquals(agent.limits, {})
  lu.assertErrorMsgContains("has no field 'limts' (did you mean 'limits'?)",
    function() return conn.limts end)
  lu.assertErrorMsgContains("did you mean 'addr'", testing.conn, { adr = "x" })
  lu.assertErrorMsgContains("conn.port must be a number, not a string",
    testing.conn, { port = "80" })
  lu.assertErrorMsgContains("T.load has no option 'module' (did you mean " ..
    "'modules'?)", testing.load, path, { module = {} })
  lu.assertErrorMsgContains("unknown hook 'visitr' (did you mean 'visitor'?)",
    w.call, "visitr", conn)
  lu.assertErrorMsgContains("visitor is called with a relay.testing conn, " ..
    "not with this agent", w.call, "visitor", agent)
  w.stop()
  lu.assertErrorMsgContains("the policy was stopped", w.call, "tick")
end

return T
