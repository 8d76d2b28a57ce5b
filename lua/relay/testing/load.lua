-- SPDX-License-Identifier: MIT
--
-- Reads a script, runs it, and checks the table it returns.

local raise = require("relay.testing.raise")
local sandbox = require("relay.testing.sandbox")
local tasks = require("relay.testing.tasks")

local load_policy = {}

local HOOKS = { "start", "save", "stop", "auth", "allocate", "visitor", "peek",
                "open", "close", "agent_gone", "tick", "log" }

load_policy.hooks = HOOKS

local is_hook = {}
for _, name in ipairs(HOOKS) do
  is_hook[name] = true
end

local LOAD_MS = 2000

-- ---- the table --------------------------------------------------------------

-- The line of the last "key =" in the source, or nil.
local function line_of(source, key)
  local line, found, from = 1, nil, 1
  if key == "" then
    return nil
  end
  while true do
    local first, last = source:find(key, from, true)
    if not first then
      return found
    end
    local _, lines = source:sub(from, first - 1):gsub("\n", "")
    line = line + lines
    local before = first > 1 and source:sub(first - 1, first - 1) or ""
    if not before:find("[%w_]") and not source:find("^[%w_]", last + 1) and
      source:find("^[ \t\"'%]]*=[^=]", last + 1) then
      found = line
    end
    from = first + 1
    if source:sub(first, first) == "\n" then
      line = line + 1
    end
  end
end

local function blame(policy, key, what)
  local line = line_of(policy.source, key)
  error(line and ("%s:%d: %s"):format(policy.path, line, what)
    or ("%s: %s"):format(policy.path, what), 0)
end

local function describe_unknown(key)
  local near = raise.nearest(key, HOOKS) or raise.nearest(key, { "options" })
  return near and ("unknown hook '%s' (did you mean '%s'?)"):format(key, near)
    or ("unknown hook '%s'"):format(key)
end

-- ---- options ----------------------------------------------------------------

local function render(value, fail)
  if type(value) == "string" then
    return value
  elseif type(value) == "number" then
    return ("%s"):format(math.tointeger(value) or value)
  elseif type(value) == "boolean" then
    return tostring(value)
  elseif raise.type(value) ~= "table" then
    return fail("must be a string, a number or a boolean")
  end
  if #value ~= 2 or math.type(value[1]) ~= "integer" or
    math.type(value[2]) ~= "integer" then
    return fail("must be two whole numbers, { LOW, HIGH }")
  end
  return ("%d-%d"):format(value[1], value[2])
end

-- As the command line would say them: max_agents = 5 is "max-agents", "5".
local function read_options(policy, options)
  local read = {}
  for key, value in next, options do
    local name = type(key) == "string" and key or "?"
    local function fail(what)
      error(("%s: option '%s' %s"):format(policy.path, name, what), 0)
    end
    if type(key) ~= "string" then
      fail("has no name")
    end
    read[key:gsub("_", "-")] = render(value, fail)
  end
  return read
end

-- ---- loading ----------------------------------------------------------------

local function take_entry(policy, key, value)
  if type(key) ~= "string" then
    error(("%s: it must return a table of hooks by name; this one has the " ..
      "key %s"):format(policy.path, tostring(key)), 0)
  end
  if key == "options" then
    if raise.type(value) ~= "table" then
      blame(policy, key, "'options' must be a table")
    end
    policy.options = read_options(policy, value)
    return
  end
  if not is_hook[key] then
    blame(policy, key, describe_unknown(key))
  end
  if type(value) ~= "function" then
    blame(policy, key, ("'%s' must be a function, not a %s"):format(
      key, raise.type(value)))
  end
  policy.hooks[key] = value
end

local function run(policy, globals)
  -- "#!", as the interpreter allows
  local text = policy.source:gsub("^#[^\n]*", "")
  local chunk, why = load(text, "@" .. policy.path, "t",
    sandbox.environment(globals))
  if not chunk then
    error(why, 0)
  end
  local hooks = chunk()
  if raise.type(hooks) ~= "table" then
    error(("%s: it must return a table of hooks, not a %s"):format(
      policy.path, raise.type(hooks)), 0)
  end
  for key, value in next, hooks do
    take_entry(policy, key, value)
  end
  return true
end

-- Loads `path` for a world. The policy; or nil and why, with file and line.
function load_policy.load(world, path, make_relay, modules)
  local file, why = io.open(path, "rb")
  if not file then
    return nil, why
  end
  local policy = {
    world = world, path = path, source = file:read("a"), hooks = {},
    options = {}, boxes = {}, tasks = {}, everies = {}, listens = {},
  }
  file:close()
  local globals = sandbox.globals(policy, make_relay(policy), modules)
  local ok
  ok, why = tasks.protect(policy, LOAD_MS, run, policy, globals)
  if not ok then
    why = tasks.first_line(why)
    return nil, why:find(policy.path, 1, true) and why or
      policy.path .. ": " .. why
  end
  return policy
end

return load_policy
