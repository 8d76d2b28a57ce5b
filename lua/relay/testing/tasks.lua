-- SPDX-License-Identifier: MIT
--
-- Coroutines in which hooks run and wait. A function that waits yields a mark
-- that only this file knows; inside a coroutine of the policy's own the mark
-- passes through resume and wrap up to the hook.

local raise = require("relay.testing.raise")
local verdict = require("relay.testing.verdict")

local tasks = {}

local MARK = {}
local STEP = 10000

-- CPU time is scarcer here: each line is counted.
local SLACK = 20

-- ---- limits -----------------------------------------------------------------

local entry = { began = 0, seconds = 0, words = "" }

local function on_event(event, line)
  local info = debug.getinfo(2, "Sl")
  if raise.is_ours(info.source) then
    return
  end
  if event == "line" then
    raise.last_line = ("%s:%d: "):format(info.short_src, line)
  end
  -- At each line too: our own steps in here are counted, and missed.
  if os.clock() - entry.began > entry.seconds then
    debug.sethook(on_event, "", 1)
    error(("%s:%d: it took more than %s of CPU time"):format(
      info.short_src, info.currentline, entry.words), 0)
  end
end

local function arm(co)
  debug.sethook(co, on_event, "l", STEP)
end

local function begin(ms)
  entry = { began = os.clock(), seconds = ms * SLACK / 1000,
            words = ms .. " ms" }
end

local function traceback(object)
  return debug.traceback(tostring(object), 2)
end

function tasks.first_line(text)
  return (text:gsub("\nstack traceback:.*", ""))
end

-- ---- running ----------------------------------------------------------------

-- Calls `body` as an entry of its own, in which nothing may wait: its first
-- result, or nil and an error with its traceback.
function tasks.protect(policy, ms, body, ...)
  local current, outer, inside = policy.current, entry, policy.world.inside
  local arguments = table.pack(...)
  policy.current = nil
  policy.world.inside = inside + 1
  begin(ms)
  local co = coroutine.create(function()
    return xpcall(body, traceback, table.unpack(arguments, 1, arguments.n))
  end)
  arm(co)
  local _, ok, result = coroutine.resume(co)
  policy.world.inside = inside
  policy.current, entry = current, outer
  if coroutine.status(co) == "suspended" then
    coroutine.close(co)
    return nil, "attempt to yield from outside a coroutine"
  end
  if ok then
    return result
  end
  return nil, result
end

-- Begins a task: `hook` is a name, or "spawn", "every". `fields` has `args`
-- (packed) and `on_end`, and for a question `question`, `subject`, `bytes`.
function tasks.make(policy, hook, run, fields)
  local task = fields
  task.policy, task.hook = policy, hook
  task.co = coroutine.create(function()
    local arguments = task.args
    local results = table.pack(xpcall(run, traceback,
      table.unpack(arguments, 1, arguments.n)))
    if not results[1] then
      error(results[2], 0)
    end
    return verdict.read(hook, task.bytes and #task.bytes or 0,
      results[2], results[3])
  end)
  arm(task.co)
  policy.tasks[task] = true
  return task
end

local function release(task)
  local clock = task.policy.world.clock
  task.ended = true
  task.policy.tasks[task] = nil
  clock:cancel(task.sleep)
  clock:cancel(task.limit)
end

-- Ends it where it stands, without on_end. Its to-be-closed variables are
-- closed, and may not wait.
function tasks.kill(task)
  if not task.running then
    begin(task.policy.world.budget_ms)
    coroutine.close(task.co)
    release(task)
  end
end

local function fail(task, text)
  task.error = text
  release(task)
  task.on_end(task)
end

-- Runs it, from its start or from its wait; `on_end` if it ended. The mark of
-- the task says how: `verdict`, or `error`.
function tasks.run(task)
  local policy = task.policy
  policy.current, task.running = task, true
  policy.world.inside = policy.world.inside + 1
  begin(policy.world.budget_ms)
  arm(task.co)
  local ok, result = coroutine.resume(task.co)
  policy.world.inside = policy.world.inside - 1
  policy.current, task.running = nil, false
  local waits = coroutine.status(task.co) == "suspended"
  if waits and result == MARK and not task.doomed then
    return
  end
  if waits then
    begin(policy.world.budget_ms)
    coroutine.close(task.co)
  end
  if task.doomed then
    task.verdict = { deny = true, reason = task.doomed }
  elseif waits then
    return fail(task, "a hook cannot yield")
  elseif not ok then
    return fail(task, type(result) == "string" and result or
      "an error without text")
  else
    task.verdict = result
  end
  release(task)
  task.on_end(task)
end

-- Fails it after so long, unless it has ended.
function tasks.limit(task, ms)
  if task.ended then
    return
  end
  task.limit = task.policy.world.clock:after(ms, function()
    coroutine.close(task.co)
    fail(task, "it waited too long")
  end)
end

-- ---- waiting ----------------------------------------------------------------

-- The task that may wait here; raises when none may.
local function wait_begin(policy, what)
  if not policy.current or not coroutine.isyieldable() then
    raise.error("%s cannot wait here", what)
  end
  return policy.current
end

local function wait_for(task, ms)
  task.sleep = task.policy.world.clock:after(ms, function()
    tasks.run(task)
  end)
  coroutine.yield(MARK)
end

function tasks.sleep(policy, ...)
  local ms = raise.check_seconds(table.pack(...), 1, "relay.sleep")
  wait_for(wait_begin(policy, "relay.sleep"), ms)
end

-- `hosts` is the test's: a list of addresses, with `delay` in seconds if it
-- takes time; or why there is none.
function tasks.resolve(policy, ...)
  local host = raise.check_string(table.pack(...), 1, "relay.resolve")
  local task = wait_begin(policy, "relay.resolve")
  local found = policy.world.hosts[host]
  local is_list = type(found) == "table"
  wait_for(task, is_list and math.ceil((found.delay or 0) * 1000) or 0)
  if not is_list then
    return nil, found or "unknown node or service"
  end
  return table.move(found, 1, #found, 1, {})
end

-- ---- a policy's own coroutines ----------------------------------------------

local waiting = setmetatable({}, { __mode = "k" })

local function resume(co, ...)
  if waiting[co] then
    return false, "cannot resume a coroutine that waits"
  end
  local results = table.pack(coroutine.resume(co, ...))
  while results[1] and results[2] == MARK and
    coroutine.status(co) == "suspended" do
    waiting[co] = true
    coroutine.yield(MARK)
    waiting[co] = nil
    results = table.pack(coroutine.resume(co))
  end
  return table.unpack(results, 1, results.n)
end

local function create(run)
  local co = coroutine.create(run)
  arm(co)
  return co
end

local function wrap(run)
  local co = create(run)
  return function(...)
    local results = table.pack(resume(co, ...))
    if results[1] then
      return table.unpack(results, 2, results.n)
    end
    if type(results[2]) == "string" then
      raise.error("%s", results[2])
    end
    error(results[2], 0)
  end
end

local function close(co)
  if waiting[co] then
    raise.error("cannot close a coroutine that waits")
  end
  return coroutine.close(co)
end

-- The library `coroutine` as a policy sees it.
function tasks.coroutine_library()
  return setmetatable({ create = create, resume = resume, wrap = wrap,
                        close = close }, { __index = coroutine })
end

-- ---- beside the hooks -------------------------------------------------------

-- From the next turn of the loop.
function tasks.spawn(policy, ...)
  local arguments = table.pack(...)
  local run = raise.check_type(arguments, 1, "relay.spawn", "function")
  table.remove(arguments, 1)
  arguments.n = arguments.n - 1
  table.insert(policy.world.spawned, tasks.make(policy, "spawn", run, {
    args = arguments,
    on_end = function(task)
      policy.world:log_failure(task, "spawn")
    end,
  }))
end

-- Those that are there now; what they spawn comes in the next turn.
function tasks.run_spawned(world)
  local list = world.spawned
  world.spawned = {}
  for _, task in ipairs(list) do
    if not task.ended then
      tasks.run(task)
    end
  end
end

local function stop(every)
  every.stopped = true
  every.policy.world.clock:cancel(every.timer)
  every.policy.everies[every] = nil
end

local function on_due(every)
  every.timer = every.policy.world.clock:after(every.ms, function()
    on_due(every)
  end)
  if every.running then
    return
  end
  every.running = true
  tasks.run(tasks.make(every.policy, "every", every.run, {
    args = { n = 0 },
    on_end = function(task)
      every.running = false
      every.policy.world:log_failure(task, "every")
      if task.verdict and task.verdict.next == 0 then
        stop(every)
      end
    end,
  }))
end

local everies = setmetatable({}, { __mode = "k" })

local function stop_box(...)
  local arguments = table.pack(...)
  if not everies[arguments[1]] then
    raise.wrong_type(arguments, 1, "stop", "relay.every")
  end
  stop(everies[arguments[1]])
end

local every_meta = { __index = { stop = stop_box }, __name = "relay.every",
                     __metatable = "relay.every", is_object = true }

function tasks.every(policy, ...)
  local arguments = table.pack(...)
  local ms = raise.check_seconds(arguments, 1, "relay.every")
  if ms == 0 then
    raise.argument(1, "relay.every", "it cannot be 0")
  end
  local run = raise.check_type(arguments, 2, "relay.every", "function")
  local every = { policy = policy, ms = ms, run = run }
  local box = setmetatable({}, every_meta)
  everies[box] = every
  policy.everies[every] = true
  every.timer = policy.world.clock:after(ms, function()
    on_due(every)
  end)
  return box
end

function tasks.stop_everies(policy)
  for every in pairs(policy.everies) do
    stop(every)
  end
end

return tasks
