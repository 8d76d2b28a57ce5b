-- SPDX-License-Identifier: MIT
--
-- Tests of policies, with no sockets and a clock that the test moves:
--
--   local T = require "relay.testing"
--   local w = T.load("policy.lua")
--   local conn = T.conn { addr = "198.51.100.7" }
--   w.call("visitor", conn, { T.agent { name = "web" } })  --> { allow = true }
--
-- docs/testing-policies.md is the manual. The engine of the relay passes the
-- tests that this stand-in passes, by the same text.

local api = require("relay.testing.api")
local background = require("relay.testing.background")
local clock = require("relay.testing.clock")
local core = require("relay.testing.core")
local hooks = require("relay.testing.hooks")
local kv = require("relay.testing.kv")
local load_policy = require("relay.testing.load")
local log = require("relay.testing.log")
local raise = require("relay.testing.raise")
local reload = require("relay.testing.reload")
local tasks = require("relay.testing.tasks")

-- What T.load takes.
local OPTIONS = { "modules", "hosts", "taken", "budget_ms", "wait_ms",
                  "hook_agent_ms", "hook_visitor_ms", "drain_ms", "memory" }

local testing = { conn = core.conn, agent = core.agent,
                  hooks = load_policy.hooks, options = OPTIONS }

-- ---- the world of one policy ------------------------------------------------

local World = {}
World.__index = World

function World:log(level, msg, fields)
  log.record(self, { level = level, msg = msg, fields = fields or {} })
end

function World:log_failure(task, where)
  if task.error then
    log.failure(self, where, task.error)
  end
end

function World:load(path)
  return load_policy.load(self, path, function(policy)
    return api.make(policy, self.modules)
  end, self.modules)
end

-- What waits for the next turn of the loop; whether there is more of it.
function World:turn()
  hooks.drain_queue(self)
  background.run_spawned(self)
  if self.reload_wanted and not self.reloading then
    self.reload_wanted = false
    reload.begin(self)
  end
  return #self.spawned > 0 or (self.reload_wanted and not self.reloading)
end

function World:advance(seconds)
  self.clock:advance(math.ceil(seconds * 1000), function()
    return self:turn()
  end)
end

-- Until it is so; an error after `seconds`.
function World:run_until(what, is_so, seconds)
  for _ = 1, seconds * 1000 do
    if is_so() then
      return
    end
    self:advance(0.001)
  end
  raise.error("%s did not end", what)
end

-- The core's own timer.
local function on_tick(world)
  hooks.tick(world)
  world.tick_timer = world.clock:after(world.tick_ms, function()
    on_tick(world)
  end)
end

local function begin(world)
  local why = reload.open_listens(world, world.policy, nil)
  if why then
    return why
  end
  world.tick_timer = world.clock:after(world.tick_ms, function()
    on_tick(world)
  end)
end

local function new_world(options)
  local world = setmetatable({
    clock = clock.new(), inside = 0, logs = {}, errors = {}, spawned = {},
    queue = {}, retired = {}, tick_ms = 1000,
    modules = options.modules, hosts = options.hosts or {},
    budget_ms = options.budget_ms or 20, wait_ms = options.wait_ms or 2000,
    hook_agent_ms = options.hook_agent_ms or 5000,
    hook_visitor_ms = options.hook_visitor_ms or 2000,
    drain_ms = options.drain_ms or 10000,
  }, World)
  world.store = kv.new(world.clock, options.memory or 64 << 20)
  return world
end

-- Loads and starts the script, as a relay would before it listens.
local function start(world, path, options)
  local why, ended
  world.policy, why = world:load(path)
  if not world.policy then
    return why
  end
  hooks.run_life(world.policy, "start", nil, function(task)
    ended = true
    why = task and task.error and tasks.first_line(task.error)
    if why and not why:find(path, 1, true) then
      why = ("%s: start: %s"):format(path, why)
    end
  end)
  world:run_until("start", function()
    return ended
  end, world.wait_ms / 1000 + 1)
  if why then
    return why
  end
  world.core = core.new(options)
  return begin(world)
end

-- ---- what a test holds ------------------------------------------------------

local function stop(world, reason)
  local verdict = hooks.stop(world, reason or "exit")
  world.core, world.stopped = nil, true
  for policy in pairs(world.retired) do
    reload.close(policy)
  end
  reload.close(world.policy)
  world.clock:cancel(world.tick_timer)
  return verdict
end

-- Its functions are called with a dot: `w.call("tick")`.
local function open(world)
  local w = { logs = world.logs, kv = kv.view(world.store) }
  local function check()
    if world.stopped then
      raise.error("the policy was stopped")
    end
  end
  function w.call(hook, ...)
    check()
    return (hooks.call(world, hook, ...))
  end
  function w.advance(seconds)
    check()
    world:advance(seconds)
  end
  function w.now()
    return world.clock.now_ms / 1000
  end
  -- true, or nil and why the old policy stays.
  function w.reload(path)
    check()
    local ok, why = reload.run(world, path)
    return ok, why
  end
  function w.stop(reason)
    check()
    local verdict = stop(world, reason)
    return verdict
  end
  -- The policy's own box of a conn or an agent.
  function w.box(handle)
    local box = hooks.box(world, handle)
    return box
  end
  local views = {
    hooks = function()
      local names = {}
      for _, name in ipairs(load_policy.hooks) do
        names[#names + 1] = world.policy.hooks[name] and name
      end
      return names
    end,
    options = function() return world.policy.options end,
    listens = function() return world.core:listens() end,
    stats = function() return world.core.stats end,
  }
  return setmetatable(w, {
    __index = function(_, key)
      if not views[key] then
        raise.unknown("a loaded policy has no field", tostring(key), { "call",
          "advance", "now", "reload", "stop", "box", "logs", "kv", "hooks",
          "options", "listens", "stats" })
      end
      return views[key]()
    end,
  })
end

-- Loads a policy and runs its `start`. Raises "FILE:LINE: why" when that goes
-- wrong.
function testing.load(path, options)
  options = options or {}
  for key in pairs(options) do
    if not table.concat(OPTIONS, " "):find("%f[%w_]" .. key .. "%f[^%w_]") then
      raise.unknown("T.load has no option", key, OPTIONS)
    end
  end
  local world = new_world(options)
  local why = start(world, path, options)
  if why then
    error(why, 0)
  end
  return open(world)
end

return testing
