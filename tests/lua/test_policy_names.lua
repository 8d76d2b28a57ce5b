-- SPDX-License-Identifier: MIT
--
-- The names a policy may use are written down in many places. The engine has
-- the truth: relay.d.lua, the std of luacheck, docs/api.md and relay.testing
-- must have the same names, no fewer and no more.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")

package.path = h.source .. "lua/?.lua;" .. package.path

local T = { limit = 60 }

-- ---- the engine's -----------------------------------------------------------

-- What a script prints when it is loaded, line by line.
local function print_of(script, ...)
  local result = h.run({ h.program("relay"), "--check", "--script",
    policy.write(script .. " return {}"), ... })
  lu.assertEquals(result.status, 0, result.stderr)
  local lines = {}
  for line in result.stderr:gmatch(" info ([^\n]*)\n") do
    table.insert(lines, line)
  end
  return lines
end

-- All of the standard library is needed to look into the tables of objects.
local NAMES = [[
  for name in pairs(relay) do print("relay." .. name) end
  for name in pairs(relay.kv) do print("relay.kv." .. name) end
  for _, kind in ipairs { "conn", "agent" } do
    local index = debug.getregistry()["relay." .. kind].__index
    local _, names = debug.getupvalue(index, 1)
    for name, what in pairs(names) do
      print(kind .. (type(what) == "function" and ":" or ".") .. name)
    end
  end
  for _, kind in ipairs { "every", "cidr" } do
    for name in pairs(debug.getregistry()["relay." .. kind].__index) do
      print(kind .. ":" .. name)
    end
  end]]

local function set_of(list)
  local set = {}
  for _, name in ipairs(list) do
    set[name] = true
  end
  return set
end

local truth

local function names_of_engine()
  truth = truth or set_of(print_of(NAMES, "--unsafe"))
  return truth
end

local function hooks_of_engine()
  local path = h.write_file(h.tmpdir() .. "/hooks.lua",
    "for _, name in ipairs(require('engine').hooks(true)) do print(name) end")
  local hooks = {}
  for name in h.output_of({ h.build .. "/tests/engine", path })
    :gmatch("[^\n]+") do
    hooks[name] = true
  end
  return hooks
end

-- Fails with what is missing and what is too much.
local function assert_same(what, found, wanted)
  local problems = {}
  for name in pairs(wanted) do
    if not found[name] then
      table.insert(problems, "missing: " .. name)
    end
  end
  for name in pairs(found) do
    if not wanted[name] then
      table.insert(problems, "not in the engine: " .. name)
    end
  end
  table.sort(problems)
  lu.assertEquals(problems, {}, what)
end

local function count(set)
  local n = 0
  for _ in pairs(set) do
    n = n + 1
  end
  return n
end

function T.test_the_engine_tells_its_names()
  local names = names_of_engine()
  for _, name in ipairs({ "relay.sleep", "relay.kv.incr", "relay.version",
                          "conn:peek", "conn.addr", "agent:close",
                          "agent.ports", "every:stop", "cidr:has" }) do
    lu.assertTrue(names[name], name)
  end
  lu.assertTrue(count(names) > 40)
  lu.assertEquals(count(hooks_of_engine()), 12)
end

-- ---- the stubs --------------------------------------------------------------

local PREFIX = { ["relay"] = "relay.", ["relay.Kv"] = "relay.kv.",
                 ["relay.Conn"] = "conn.", ["relay.Agent"] = "agent.",
                 ["relay.Policy"] = "hook " }
local OWNER = { relay = "relay.", kv = "relay.kv.", Conn = "conn:",
                Agent = "agent:", Every = "every:", Cidr = "cidr:" }

-- Names, and hooks as "hook NAME".
local function names_of_stubs()
  local names, prefix = {}, nil
  for line in h.read_file(h.source .. "lua/relay.d.lua"):gmatch("[^\n]+") do
    local class = line:match("^%-%-%-@class %(exact%) (%S+)")
      or line:match("^%-%-%-@class (%S+)")
    local field = line:match("^%-%-%-@field ([%w_]+)")
    local owner, name = line:match("^function (%w+)[.:]([%w_]+)")
    if class then
      prefix = PREFIX[class]
    elseif field and prefix then
      names[prefix .. field] = true
    elseif owner then
      lu.assertNotNil(OWNER[owner], line)
      names[OWNER[owner] .. name] = true
    end
  end
  return names
end

-- Parts them: names without hooks, and hooks.
local function part(names)
  local others, hooks = {}, {}
  for name in pairs(names) do
    local hook = name:match("^hook ([%w_]+)")
    if hook then
      hooks[hook] = true
    elseif not name:find("^option ") then
      others[name] = true
    end
  end
  return others, hooks
end

function T.test_stubs()
  local names, hooks = part(names_of_stubs())
  assert_same("lua/relay.d.lua", names, names_of_engine())
  hooks.options = nil
  assert_same("lua/relay.d.lua", hooks, hooks_of_engine())
end

-- Every stub is Lua that loads, so no editor stumbles.
function T.test_stubs_load()
  lu.assertEquals(type(assert(loadfile(h.source .. "lua/relay.d.lua"))()),
    "table")
end

-- ---- relay.testing ----------------------------------------------------------

function T.test_testing()
  local testing = require("relay.testing")
  local w = testing.load(policy.write([[
    for name in pairs(relay) do print("relay." .. name) end
    for name in pairs(relay.kv) do print("relay.kv." .. name) end
    return {}]]))
  local found = {}
  for _, record in ipairs(w.logs) do
    found[record.msg] = true
  end
  local boxes = require("relay.testing.boxes")
  for kind, names in pairs(boxes.names) do
    for _, name in ipairs(names) do
      found[kind .. (boxes.is_method(kind, name) and ":" or ".") .. name] = true
    end
  end
  found["every:stop"], found["cidr:has"] = true, true
  assert_same("relay.testing", found, names_of_engine())
  assert_same("relay.testing", set_of(testing.hooks), hooks_of_engine())
end

-- ---- docs/api.md ------------------------------------------------------------

-- Its headings: "### relay.sleep", "### hook visitor", "### conn:close".
function T.test_docs()
  local file = io.open(h.source .. "docs/api.md")
  if not file then
    h.skip("there is no docs/api.md")
  end
  local found = {}
  for line in file:lines() do
    local name = line:match("^### ([%w_.: ]+)$")
    if name then
      found[name] = true
    end
  end
  file:close()
  local names, hooks = part(found)
  names["every:stop"], names["cidr:has"] = true, true -- told with their makers
  names["relay.kv"] = true
  assert_same("docs/api.md", names, names_of_engine())
  assert_same("docs/api.md", hooks, hooks_of_engine())
end

-- ---- the std of luacheck ----------------------------------------------------

-- What of math is left from 5.2, where Lua was built so.
local OLD = set_of({ "math.atan2", "math.cosh", "math.frexp", "math.ldexp",
                     "math.log10", "math.pow", "math.sinh", "math.tanh" })

-- Globals and the fields of libraries that a policy sees, as "os.time".
local GLOBALS = [[
  for name, value in pairs(_G) do
    print(name)
    if type(value) == "table" and name ~= "_G" then
      for field in pairs(value) do print(name .. "." .. field) end
    end
  end]]

local function globals_of_engine()
  local globals = set_of(print_of(GLOBALS))
  for name in pairs(OLD) do
    globals[name] = nil
  end
  return globals
end

function T.test_luacheck_std()
  local std = dofile(h.source .. "lua/relay/luacheck.lua")
  local found = {}
  for name, about in pairs(std.read_globals) do
    found[name] = true
    for field in pairs(about.fields or {}) do
      found[name .. "." .. field] = true
    end
  end
  assert_same("lua/relay/luacheck.lua", found, globals_of_engine())
end

-- The stand-in's own globals are these too.
function T.test_globals_of_testing()
  local w = require("relay.testing").load(policy.write(GLOBALS .. " return {}"))
  local found = {}
  for _, record in ipairs(w.logs) do
    found[record.msg] = not OLD[record.msg] or nil
  end
  assert_same("relay.testing", found, globals_of_engine())
end

function T.test_luacheck_finds_mistakes()
  h.need("luacheck")
  local directory = h.tmpdir()
  h.output_of({ "mkdir", directory .. "/scripts" })
  h.write_file(directory .. "/.luacheckrc", ("stds.policy = dofile(%q)\n" ..
    "files['scripts/'] = { std = 'policy' }\n"):format(
      h.output_of({ "realpath", h.source .. "lua/relay/luacheck.lua" })
        :gsub("\n", "")))
  h.write_file(directory .. "/scripts/bad.lua",
    "os.exit(1)\nio.popen('x')\nvisits = 5\nreturn { close = prnt }\n")
  local result = h.run({ "luacheck", "--no-color", "--codes", "--no-cache",
    "--formatter", "plain", "scripts", cwd = directory })
  lu.assertEquals(result.status, 1, result.stderr)
  local _, warnings = result.stdout:gsub("\n", "")
  lu.assertEquals(warnings, 4, result.stdout)
end

return T
