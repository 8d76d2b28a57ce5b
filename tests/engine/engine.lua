-- SPDX-License-Identifier: MIT
--
-- The real engine, with the calls of relay.testing: what passes with one must
-- pass with the other. Conns, agents and what the relay answers are those of
-- relay.testing; reading, running and judging the script is the engine's.
-- One policy at a time.

local engine = require("engine")
local clock = require("relay.testing.clock")
local core = require("relay.testing.core")

local T = { conn = core.conn, agent = core.agent, hooks = engine.hooks(true) }

local FAILED = "a policy hook failed or took too long"
local DEADLINE_MS = { auth = 5000, allocate = 5000, visitor = 2000,
                      peek = 2000 }

local World = {}
World.__index = World

-- ---- the clock --------------------------------------------------------------

local function sync(world)
  local behind = world.clock.now_ms - engine.now()
  if behind > 0 then
    engine.pass(behind)
  end
end

function World:advance(seconds)
  local function turn()
    sync(self)
    local timeout = engine.turn()
    return timeout == 0, timeout and self.clock.now_ms + timeout
  end
  self.clock:advance(math.ceil(seconds * 1000), turn)
  sync(self)
end

local function new_clock()
  local made = clock.new(engine.now())
  function made:run_due()
    local behind = self.now_ms - engine.now()
    if behind > 0 then
      engine.pass(behind)
    end
    clock.run_due(self)
  end
  return made
end

function World:run_until(is_so, seconds)
  for _ = 1, seconds * 1000 do
    if is_so() then
      return
    end
    self:advance(0.001)
  end
  error("it did not end", 0)
end

-- ---- what the engine calls --------------------------------------------------

local function code_or_nil(name)
  return name and engine.code(name)
end

local function settle(world, call, given)
  local event = world.calls[call]
  if not event then
    return
  end
  world.calls[call] = nil
  world.clock:cancel(event.deadline)
  if given.reason == FAILED then
    given.error = given.error or world.last_error[event.hook]
  end
  given.agent = given.agent and world.core.handles[given.agent]
  event.verdict.pending = nil
  for key, value in pairs(given) do
    event.verdict[key] = value
  end
  world.core:obey(event.handle, given)
end

local function take_record(world, record)
  if record.msg == "policy hook failed" then
    world.last_error[record.fields.hook] = record.fields.error
    world.failed = record.fields.error
  elseif record.msg == "policy reloaded" then
    world.reloaded = { true }
  elseif record.msg == "policy not reloaded" then
    world.reloaded = { nil, record.fields.reason }
  end
  table.insert(world.logs, record)
end

local function callbacks(world)
  return {
    settle = function(call, given) settle(world, call, given) end,
    record = function(record) take_record(world, record) end,
    line = function(level, line)
      world.line = line
      table.insert(world.logs, { level = level, line = line })
    end,
    started = function(why) world.started = why or true end,
    get = function(kind, id)
      local handle = world.core:get(id)
      return handle and core.kind(handle) == kind and handle or nil
    end,
    list = function(kind) return world.core:list(kind) end,
    close = function(handle, why) core.close(handle, why) end,
    limit = function(handle, limits) core.limit(handle, limits) end,
    tag = function(handle, key, value)
      return code_or_nil(core.tag(handle, key, value))
    end,
    peek = function(handle, seconds)
      return code_or_nil(world.core:peek(handle, seconds))
    end,
    listen = function(port, host)
      return code_or_nil(world.core:listen(port, host))
    end,
    unlisten = function(port) world.core:unlisten(port) end,
    stats = function() return world.core:get_stats() end,
    resolve = function(host) return world.hosts[host] end,
  }
end

-- ---- questions and news -----------------------------------------------------

local asks = {
  auth = function(call, agent, cred)
    cred = cred or {}
    return engine.auth(call, agent, cred.id, cred.certificate)
  end,
  allocate = function(call, agent, want)
    want = want or {}
    return engine.allocate(call, agent, want.port, want.host, want.attempt)
  end,
  visitor = function(call, conn, agents)
    return engine.visitor(call, conn, agents or {})
  end,
  peek = function(call, conn, bytes)
    return engine.peek(call, conn, bytes, conn.eof)
  end,
}

local function ask(world, hook, handle, given)
  local event = { hook = hook, handle = handle, verdict = {} }
  world.last_call = world.last_call + 1
  local call = world.last_call
  world.core:know(handle)
  world.core:ask(hook, handle)
  world.calls[call] = event
  local answer = asks[hook](call, handle, given)
  if not answer then
    settle(world, call, { deny = true, reason = FAILED })
  elseif answer.pending then
    if world.calls[call] then
      event.verdict.pending = true
      event.deadline = world.clock:after(DEADLINE_MS[hook], function()
        engine.cancel(call)
        settle(world, call, { deny = true, reason = FAILED,
                              error = "it waited too long" })
      end)
    end
  else
    settle(world, call, answer)
  end
  return event.verdict
end

local function tell(world, hook, handle, reason)
  world.failed = nil
  if hook == "open" then
    world.core:know(handle)
    engine.open(handle)
  else
    world.core:forget(handle)
    if hook == "close" then
      engine.close(handle)
    else
      engine.agent_gone(handle, reason and engine.code(reason))
    end
  end
  return { error = world.failed }
end

local function ask_log(world, event)
  local fields = {}
  for key, value in pairs(event.fields or {}) do
    table.insert(fields, { key, value })
  end
  world.line, world.failed = nil, nil
  local dropped = engine.log(event.level or "info", event.msg, fields)
  if world.line then
    return { line = world.line }
  end
  if not dropped then
    table.insert(world.logs, { level = event.level or "info", msg = event.msg,
                               fields = event.fields or {} })
  end
  return { drop = dropped or nil, error = world.failed }
end

local function call(world, hook, handle, given)
  if hook == "log" then
    return ask_log(world, handle)
  elseif hook == "tick" then
    engine.tick()
    return {}
  elseif asks[hook] then
    for _, agent in ipairs(hook == "visitor" and given or {}) do
      world.core:know(agent)
    end
    return ask(world, hook, handle, given)
  end
  return tell(world, hook, handle, given)
end

-- ---- life -------------------------------------------------------------------

local function on_tick(world)
  world.clock:after(engine.tick(), function()
    on_tick(world)
  end)
end

local current

local function stop(world)
  world.failed, current = nil, nil
  engine.stop()
  return { error = world.failed }
end

local function reload(world)
  world.reloaded = nil
  engine.reload()
  world:run_until(function()
    return world.reloaded
  end, 10)
  return world.reloaded[1], world.reloaded[2]
end

local function open(world)
  return {
    logs = world.logs,
    call = function(...) return call(world, ...) end,
    advance = function(seconds) world:advance(seconds) end,
    now = function() return world.clock.now_ms / 1000 end,
    reload = function() return reload(world) end,
    stop = function() return stop(world) end,
    hooks = engine.hooks(),
    options = engine.options(),
    stats = world.core.stats,
  }
end

function T.load(path, options)
  options = options or {}
  T.close()
  local world = setmetatable({
    clock = new_clock(), logs = {}, calls = {}, last_call = 0,
    last_error = {}, hosts = options.hosts or {},
    core = core.new(options),
  }, World)
  local ok, why = engine.load(path, callbacks(world))
  if not ok then
    engine.turn()
    error(why, 0)
  end
  current = world
  engine.start()
  world:run_until(function()
    return world.started
  end, 3)
  why = world.started ~= true and world.started or engine.attach()
  if why then
    stop(world)
    error(why, 0)
  end
  world.clock:after(1000, function()
    on_tick(world)
  end)
  local w = open(world)
  return setmetatable(w, { __index = function(_, key)
    return key == "listens" and world.core:listens() or nil
  end })
end

-- Ends what a test has left.
function T.close()
  if current then
    stop(current)
  end
end

return T
