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

-- Where a hook yielded that was not to wait.
local function blame_yield(co)
  local level = 0
  local at = debug.getinfo(co, level, "Sl")
  while at and (at.currentline < 0 or raise.is_ours(at.source)) do
    level = level + 1
    at = debug.getinfo(co, level, "Sl")
  end
  return at and ("%s:%d: a hook cannot yield"):format(at.short_src,
    at.currentline) or "a hook cannot yield"
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
  local blame = waits and blame_yield(task.co)
  if waits then
    begin(policy.world.budget_ms)
    coroutine.close(task.co)
  end
  if task.doomed then
    task.verdict = { deny = true, reason = task.doomed }
  elseif waits then
    return fail(task, blame)
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

-- What the policy hands out to be called back; the first call counts.
local function make_waker(task)
  local waker = { state = "asking" }
  local function wake(...)
    if task.ended or waker.state == "woken" or waker.state == "over" then
      return false
    end
    waker.values = table.pack(...)
    if waker.state == "waiting" then
      local clock = task.policy.world.clock
      clock:cancel(task.sleep)
      task.sleep = clock:after(0, function()
        tasks.run(task)
      end)
    end
    waker.state = "woken"
    return true
  end
  return waker, wake
end

-- relay.wait
function tasks.wait(policy, ...)
  local arguments = table.pack(...)
  local run = raise.check_type(arguments, 1, "relay.wait", "function")
  local ms = arguments[2] ~= nil
    and raise.check_seconds(arguments, 2, "relay.wait")
  if ms == 0 then
    raise.argument(2, "relay.wait", "it cannot be 0")
  end
  local waker, wake = make_waker(wait_begin(policy, "relay.wait"))
  local _ <close> = setmetatable({}, {
    __close = function() waker.state = "over" end,
  })
  run(wake)
  if waker.state ~= "woken" then
    local task = wait_begin(policy, "relay.wait")
    waker.state = "waiting"
    if ms then
      wait_for(task, ms)
    else
      coroutine.yield(MARK)
    end
  end
  if waker.state ~= "woken" then
    return nil, "timeout"
  end
  return table.unpack(waker.values, 1, waker.values.n)
end

-- `hosts` is the test's: a list of addresses, with `delay` in seconds if it
-- takes time; or why there is none.
function tasks.resolve(policy, ...)
  local host = raise.check_text(table.pack(...), 1, "relay.resolve")
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
  local library = {}
  for name, value in pairs(coroutine) do
    library[name] = value
  end
  library.create, library.resume = create, resume
  library.wrap, library.close = wrap, close
  return library
end

return tasks
