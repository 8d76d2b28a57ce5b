-- SPDX-License-Identifier: MIT
--
-- docs/security.md promises nothing that no test holds: each row of its tables
-- names tests, and each of them is there.

local lu = require("luaunit")
local h = require("harness")

local T = {}

local function page()
  return h.read_file(h.source .. "docs/security.md")
end

-- The rows of all tables, without their heads.
local function rows()
  local list, head = {}, true
  for line in page():gmatch("([^\n]*)\n") do
    if not line:find("^|") then
      head = true
    elseif line:find("^|%-") then
      head = false
    elseif not head then
      table.insert(list, line)
    end
  end
  return list
end

local suites = {}

-- Loaded as it is run: some make their tests.
local function has_lua_test(file, name)
  if suites[file] == nil then
    local path = ("%stests/lua/test_%s.lua"):format(h.source, file)
    local chunk = loadfile(path)
    suites[file] = chunk and chunk() or false
  end
  return suites[file] and type(suites[file][name]) == "function"
end

local function has_c_test(file, name)
  local text = h.read_file(("%stests/c/test_%s.c"):format(h.source, file))
  return text:find(("TEST(%s)"):format(name), 1, true) and
    text:find(("RUN(%s);"):format(name), 1, true)
end

function T.test_each_promise_has_its_test()
  local all = rows()
  lu.assertTrue(#all > 40, #all)
  for _, row in ipairs(all) do
    lu.assertNotNil(row:find("`lua/[%w_]+%.test_[%w_]+`") or
      row:find("`c/[%w_]+%.[%w_]+`"), "no test holds " .. row)
  end
end

function T.test_each_test_that_is_named_is_there()
  local missing = {}
  for kind, file, name in page():gmatch("`(%l+)/([%w_]+)%.([%w_]+)`") do
    local has = kind == "lua" and has_lua_test or has_c_test
    if name ~= "x" and name ~= "test_x" and not has(file, name) then
      table.insert(missing, ("%s/%s.%s"):format(kind, file, name))
    end
  end
  lu.assertEquals(missing, {})
end

return T
