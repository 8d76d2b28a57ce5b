-- SPDX-License-Identifier: MIT
--
-- What of the standard library a policy sees, in a table of globals of its own:
-- nothing that ends the process, no bytecode, no finalizers, print goes to the
-- log. Modules come from the test first, then from where the relay finds them.

local raise = require("relay.testing.raise")
local tasks = require("relay.testing.tasks")

local sandbox = {}

-- Where Debian keeps pure Lua modules that it has up to 5.3 only.
local OLDER_PATH = "/usr/local/share/lua/5.3/?.lua;" ..
  "/usr/local/share/lua/5.3/?/init.lua;" ..
  "/usr/share/lua/5.3/?.lua;/usr/share/lua/5.3/?/init.lua"

-- Left out of each library.
local REMOVED = { os = { "exit", "execute", "setlocale" }, io = { "popen" } }

local function copy(from)
  local to = {}
  for key, value in pairs(from) do
    to[key] = value
  end
  return to
end

-- ---- functions that differ --------------------------------------------------

local function safe_setmetatable(value, meta, ...)
  if type(meta) == "table" and rawget(meta, "__gc") ~= nil then
    raise.error("a policy cannot have finalizers (__gc)")
  end
  return setmetatable(value, meta, ...)
end

local function loaders(globals)
  local function load_text(chunk, name, _, ...)
    if select("#", ...) > 0 then
      return load(chunk, name, "t", (...))
    end
    return load(chunk, name, "t", globals)
  end
  local function load_file(path, _, ...)
    if select("#", ...) > 0 then
      return loadfile(path, "t", (...))
    end
    return loadfile(path, "t", globals)
  end
  local function do_file(path)
    local chunk, why = loadfile(path, "t", globals)
    if not chunk then
      error(why, 0)
    end
    return chunk()
  end
  return load_text, load_file, do_file
end

local function printer(policy)
  return function(...)
    local words = table.pack(...)
    for i = 1, words.n do
      words[i] = tostring(words[i])
    end
    policy.world:log("info", raise.printable(table.concat(words, " ")))
  end
end

-- ---- modules ----------------------------------------------------------------

-- A module of the test, of the policy's folder, or of the system; those in C
-- are the test's own.
local function find_module(name, package, globals)
  local path, tried = package.searchpath(name, package.path)
  if path then
    local chunk, why = loadfile(path, "t", globals)
    if not chunk then
      error(("cannot load '%s': %s"):format(name, why), 0)
    end
    return chunk, path
  end
  if package.searchpath(name, package.cpath) then
    return require, package.searchpath(name, package.cpath)
  end
  raise.error("module '%s' not found:%s", name, tried)
end

local function make_require(package, globals)
  return function(...)
    local name = raise.check_string(table.pack(...), 1, "require")
    if package.loaded[name] ~= nil then
      return package.loaded[name]
    end
    local chunk, path = package.preload[name], ":preload:"
    if not chunk then
      chunk, path = find_module(name, package, globals)
    end
    local value = chunk(name, path)
    if value ~= nil then
      package.loaded[name] = value
    elseif package.loaded[name] == nil then
      package.loaded[name] = true
    end
    return package.loaded[name], path
  end
end

local function folder_of(path)
  return path:match("^(.*)/[^/]*$") or "."
end

-- ---- the whole --------------------------------------------------------------

local LIBRARIES = { "string", "table", "math", "utf8", "io", "os" }

-- The globals of a policy. `relay` is its module; `modules` are the test's: a
-- function makes one when it is required, and is given `relay`, to wait with.
function sandbox.globals(policy, relay, modules)
  local globals = copy(_G)
  globals.arg = nil
  globals._G = globals
  for _, name in ipairs(LIBRARIES) do
    globals[name] = copy(_G[name])
    for _, removed in ipairs(REMOVED[name] or {}) do
      globals[name][removed] = nil
    end
  end
  globals.coroutine = tasks.coroutine_library()
  globals.debug = { traceback = debug.traceback }
  globals.type = function(...)
    local value = ...
    if select("#", ...) == 0 then
      raise.argument(1, "type", "value expected")
    end
    return raise.type(value)
  end
  globals.print = printer(policy)
  globals.setmetatable = safe_setmetatable
  globals.load, globals.loadfile, globals.dofile = loaders(globals)
  local library = {
    path = ("%s/?.lua;%s;%s"):format(
      folder_of(policy.path), package.path, OLDER_PATH),
    cpath = package.cpath, config = package.config,
    searchpath = package.searchpath, preload = {}, searchers = {},
    loaded = { _G = globals, relay = relay, debug = globals.debug,
               coroutine = globals.coroutine },
  }
  for _, name in ipairs(LIBRARIES) do
    library.loaded[name] = globals[name]
  end
  for name, module in pairs(modules or {}) do
    if type(module) == "function" then
      library.preload[name] = function() return module(relay) end
    else
      library.loaded[name] = module
    end
  end
  library.loaded.package = library
  globals.package = library
  globals.require = make_require(library, globals)
  policy.require = globals.require
  return globals
end

-- The policy file's own environment: undeclared globals are errors.
function sandbox.environment(globals)
  return setmetatable({}, {
    __index = function(_, name)
      local value = rawget(globals, name)
      if value == nil then
        raise.error(name == "relay" and "undeclared variable 'relay' " ..
          "(local relay = require \"relay\")" or "undeclared variable '%s'",
          tostring(name))
      end
      return value
    end,
    __newindex = function(_, name)
      raise.error("assignment to undeclared variable '%s' (make it local)",
        tostring(name))
    end,
  })
end

return sandbox
