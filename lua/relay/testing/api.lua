-- SPDX-License-Identifier: MIT
--
-- The module `relay` of a policy under test: every function of the real one.

local raise = require("relay.testing.raise")
local background = require("relay.testing.background")
local boxes = require("relay.testing.boxes")
local cidr = require("relay.testing.cidr")
local kv = require("relay.testing.kv")
local peekers = require("relay.testing.peekers")
local tasks = require("relay.testing.tasks")

local api = {}

local VERSION = "0.1.0"
local LISTENS_MAX = 64

local function core_of(policy)
  local core = policy.world.core
  if not core then
    raise.error("there is no relay yet, or no more")
  end
  return core
end

-- Each of these is given the policy and packed arguments.
local functions = {}

function functions.now(policy)
  return policy.world.clock.now_ms / 1000
end

function functions.sleep(policy, arguments)
  tasks.sleep(policy, table.unpack(arguments, 1, arguments.n))
end

function functions.wait(policy, arguments)
  return tasks.wait(policy, table.unpack(arguments, 1, arguments.n))
end

function functions.resolve(policy, arguments)
  return tasks.resolve(policy, table.unpack(arguments, 1, arguments.n))
end

function functions.spawn(policy, arguments)
  background.spawn(policy, table.unpack(arguments, 1, arguments.n))
end

function functions.every(policy, arguments)
  return background.every(policy, table.unpack(arguments, 1, arguments.n))
end

function functions.cidr(_, arguments)
  return cidr.make(table.unpack(arguments, 1, arguments.n))
end

local LEVELS = { debug = true, info = true, warn = true, error = true }

function functions.log(policy, arguments)
  local level = raise.check_string(arguments, 1, "relay.log")
  if not LEVELS[level] then
    raise.argument(1, "relay.log", ("invalid option '%s'"):format(level))
  end
  local text
  if arguments.n > 2 then
    raise.check_string(arguments, 2, "relay.log")
    local ok
    ok, text = pcall(string.format, table.unpack(arguments, 2, arguments.n))
    if not ok and (text:find("^bad argument ") or text:find("^invalid ")) then
      raise.error("%s", text)
    elseif not ok then
      error(text, 0)
    end
  elseif arguments.n < 2 then
    raise.argument(2, "relay.log", "value expected")
  else
    text = tostring(arguments[2])
  end
  policy.world:log(level, raise.printable(text))
end

-- ---- lists and numbers ------------------------------------------------------

local function push_list(policy, kind)
  local list = {}
  for _, handle in ipairs(core_of(policy):list(kind)) do
    table.insert(list, boxes.push(policy, handle))
  end
  return list
end

function functions.agents(policy)
  return push_list(policy, "agent")
end

function functions.conns(policy)
  return push_list(policy, "conn")
end

function functions.stats(policy)
  return core_of(policy):get_stats()
end

-- ---- shared listeners, reload -----------------------------------------------

local function read_listen(arguments)
  local port, host = 0, nil
  for key, value in next,
    raise.check_type(arguments, 1, "relay.listen", "table") do
    key = type(key) == "string" and key or "?"
    if key == "port" then
      port = math.tointeger(value)
    elseif key == "host" then
      if not cidr.is_address(value) then
        raise.argument(1, "relay.listen", "host must be a literal address")
      end
      host = value
    else
      raise.unknown("relay.listen: unknown key", key, { "host", "port" })
    end
  end
  if not port or port < 1 or port > 65535 then
    raise.argument(1, "relay.listen", "port must be 1 to 65535")
  end
  return { port = port, host = host }
end

function functions.listen(policy, arguments)
  local listen = read_listen(arguments)
  for _, other in ipairs(policy.listens) do
    if other.port == listen.port and other.host == listen.host then
      return true
    elseif other.port == listen.port then
      return nil, boxes.text_of("EADDRINUSE")
    end
  end
  if #policy.listens == LISTENS_MAX then
    raise.error("relay.listen: at most %d ports", LISTENS_MAX)
  end
  -- In `start` it is a wish, opened when the policy comes into force.
  local world = policy.world
  if policy == world.policy and world.core then
    local why = world.core:listen(listen.port, listen.host)
    if why then
      return nil, boxes.text_of(why)
    end
  end
  table.insert(policy.listens, listen)
  return true
end

function functions.reload(policy)
  local world = policy.world
  if world.reloading then
    return nil, "a reload is under way"
  end
  world.reload_wanted = true
  return true
end

-- ---- the whole --------------------------------------------------------------

-- Not as a tail call: the place it was called from would be lost.
local function bind(call, policy)
  return function(...)
    local results = table.pack(call(policy, table.pack(...)))
    return table.unpack(results, 1, results.n)
  end
end

-- Sockets are the test's to give: `modules = { socket = … }`.
local function make_tcp(policy, modules)
  return function(...)
    if not (modules and modules.socket) then
      raise.error("relay.testing has no sockets: give T.load a module 'socket'")
    end
    local socket, why = policy.require("socket").tcp(...)
    return socket, why
  end
end

function api.make(policy, modules)
  local relay = { version = VERSION, kv = kv.open(policy.world.store) }
  for name, call in pairs(functions) do
    relay[name] = bind(call, policy)
  end
  for name, read in pairs(peekers) do
    relay[name] = read
  end
  relay.tcp = make_tcp(policy, modules)
  return setmetatable(relay, {
    __index = function(_, key)
      local names = {}
      for name in next, relay do
        table.insert(names, name)
      end
      raise.unknown("relay has no", tostring(key), names)
    end,
  })
end

return api
