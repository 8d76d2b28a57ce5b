-- SPDX-License-Identifier: MIT
--
-- Calling the hooks: what the relay would hand over, made of what the test
-- has, and the verdict. A question whose hook waits is pending; what comes
-- while no hook may run is queued.

local raise = require("relay.testing.raise")
local boxes = require("relay.testing.boxes")
local core = require("relay.testing.core")
local load_policy = require("relay.testing.load")
local log = require("relay.testing.log")
local tasks = require("relay.testing.tasks")

local hooks = {}

local FAILED = "a policy hook failed or took too long"

local QUESTIONS = { auth = "agent", allocate = "agent", visitor = "conn",
                    peek = "conn" }
local NEWS = { open = "conn", close = "conn", agent_gone = "agent" }

-- ---- events -----------------------------------------------------------------

-- Fills a verdict that the test may hold already.
local function settle(verdict, given)
  verdict.pending = nil
  for key, value in pairs(given) do
    verdict[key] = value
  end
end

local function push_agents(policy, agents)
  local list = {}
  for i, agent in ipairs(agents or {}) do
    list[i] = boxes.push(policy, agent)
  end
  return list
end

-- `known`: whether it would be let in anyway; `certificate`: what a certificate
-- that was verified calls the agent; `key`: what the agent can prove. One
-- that cannot leaves the hook waiting, until its time is over.
local function push_cred(policy, cred)
  cred = cred or {}
  local kind = cred.id and "token" or cred.certificate and "certificate" or nil
  return {
    id = cred.id or cred.certificate,
    kind = kind,
    certificate = cred.certificate,
    fingerprint = cred.fingerprint,
    known = function()
      return cred.known == true
    end,
    verify = function(_, key)
      if type(key) ~= "string" or not (#key == 32 or
        #key == 64 and key:find("^%x+$")) then
        raise.argument(1, "verify", "a key is 32 bytes, or 64 hexadecimal " ..
          "digits")
      end
      tasks.sleep(policy, key == cred.key and 0 or 1e8)
      return true
    end,
  }
end

local function push_want(want)
  want = want or {}
  return { port = want.port, host = want.host, attempt = want.attempt or 1 }
end

-- The arguments of the event's hook, for the policy that is to be told.
local function push(policy, event)
  local hook, handle, given = event.hook, event.handle, event.given
  if hook == "auth" then
    return boxes.push(policy, handle), push_cred(policy, given)
  elseif hook == "allocate" then
    return boxes.push(policy, handle), push_want(given)
  elseif hook == "visitor" then
    return boxes.push(policy, handle), push_agents(policy, given)
  elseif hook == "peek" then
    local box = boxes.push(policy, handle)
    boxes.set_eof(box, handle.eof)
    return box, given
  elseif hook == "open" then
    return handle.alive and boxes.push(policy, handle)
      or boxes.push_final(policy, handle)
  elseif hook == "close" then
    return boxes.push_final(policy, handle)
  elseif hook == "agent_gone" then
    return boxes.push_final(policy, handle), given or "ended"
  elseif hook == "tick" then
    return policy.world.clock.now_ms / 1000
  end
  return given -- start, stop
end

local function make(policy, event, on_end)
  return tasks.make(policy, event.hook, policy.hooks[event.hook], {
    args = table.pack(push(policy, event)),
    subject = event.handle,
    question = QUESTIONS[event.hook] ~= nil,
    bytes = event.hook == "peek" and event.given or nil,
    on_end = on_end,
  })
end

-- ---- questions --------------------------------------------------------------

local function conclude(world, policy, event, given)
  if not event.handle.alive and not given.deny then
    given = { deny = true }
  end
  if given.deny and (event.hook == "visitor" or event.hook == "auth") then
    boxes.forget(policy, event.handle)
  end
  world.core:obey(event.handle, given)
  settle(event.verdict, given)
end

local function set_deadline(world, policy, event, task)
  local ms = QUESTIONS[event.hook] == "agent" and world.hook_agent_ms
    or world.hook_visitor_ms
  event.deadline = world.clock:after(ms, function()
    tasks.kill(task)
    conclude(world, policy, event, { deny = true, reason = FAILED,
                                     error = "it waited too long" })
  end)
end

local function ask(world, event)
  local policy = world.policy
  if not policy.hooks[event.hook] then
    conclude(world, policy, event, { allow = true })
    return
  end
  world.core:ask(event.hook, event.handle)
  local task = make(policy, event, function(task)
    world.clock:cancel(event.deadline)
    world:log_failure(task, event.hook)
    conclude(world, policy, event, task.verdict or { deny = true,
      reason = FAILED, error = tasks.first_line(task.error) })
  end)
  event.verdict.pending = true
  tasks.run(task)
  if not task.ended then
    set_deadline(world, policy, event, task)
  end
end

-- ---- news -------------------------------------------------------------------

local function forget(world, policy, event)
  if event.hook ~= "close" and event.hook ~= "agent_gone" then
    return
  end
  boxes.forget(policy, event.handle)
  for retired in pairs(world.retired) do
    boxes.forget(retired, event.handle)
  end
end

local function tell(world, event)
  local policy = world.policy
  if event.hook == "close" or event.hook == "agent_gone" then
    world.core:forget(event.handle)
  end
  if not policy.hooks[event.hook] then
    forget(world, policy, event)
    settle(event.verdict, {})
    return
  end
  event.verdict.pending = true
  local task = make(policy, event, function(task)
    world:log_failure(task, event.hook)
    forget(world, policy, event)
    settle(event.verdict, task.error and
      { error = tasks.first_line(task.error) } or task.verdict)
  end)
  tasks.run(task)
  tasks.limit(task, world.wait_ms)
end

-- ---- the queue --------------------------------------------------------------

local function is_busy(world)
  return world.inside > 0 or world.frozen
end

local function hand_over(world, event)
  if QUESTIONS[event.hook] then
    ask(world, event)
  else
    tell(world, event)
  end
end

function hooks.drain_queue(world)
  while #world.queue > 0 and not is_busy(world) do
    hand_over(world, table.remove(world.queue, 1))
  end
end

-- ---- tick, start, save, stop ------------------------------------------------

-- The verdict, or nil while the last one still waits.
function hooks.tick(world)
  local policy = world.policy
  if is_busy(world) or policy.ticking or not policy.hooks.tick then
    return {}
  end
  local verdict = { pending = true }
  policy.ticking = true
  local task = make(policy, { hook = "tick" }, function(task)
    policy.ticking = false
    world:log_failure(task, "tick")
    local next_s = task.verdict and task.verdict.next
    next_s = next_s and next_s > 0 and next_s or nil
    world.tick_ms = next_s and math.ceil(next_s * 1000) or world.tick_ms
    settle(verdict, { next = next_s, error = task.error and
      tasks.first_line(task.error) })
  end)
  tasks.run(task)
  tasks.limit(task, world.wait_ms)
  return verdict
end

-- Runs a hook that answers nobody; on_end with no task if there is none.
function hooks.run_life(policy, hook, given, on_end)
  if not policy.hooks[hook] then
    on_end(nil)
    return
  end
  local task = make(policy, { hook = hook, given = given }, on_end)
  tasks.run(task)
  tasks.limit(task, policy.world.wait_ms)
end

-- Runs it to its end, waits and all.
local function run_to_end(world, hook, given)
  local verdict
  hooks.run_life(world.policy, hook, given, function(task)
    verdict = {}
    if task then
      world:log_failure(task, hook)
      settle(verdict, task.error and
        { error = tasks.first_line(task.error) } or task.verdict)
    end
  end)
  world:run_until(hook, function()
    return verdict
  end, world.wait_ms / 1000 + 1)
  return verdict
end

function hooks.stop(world, reason)
  return run_to_end(world, "stop", reason)
end

-- ---- what a test calls ------------------------------------------------------

local function check_handle(hook, handle, kind)
  if core.kind(handle) ~= kind then
    raise.error("%s is called with a relay.testing %s, not with this %s", hook,
      kind, core.kind(handle) or type(handle))
  end
  if not handle.alive and QUESTIONS[hook] then
    raise.error("%s has ended", tostring(handle))
  end
end

-- Agents that are handed over are there.
local function check_given(world, hook, given)
  if hook == "peek" and type(given) ~= "string" then
    raise.error("peek is called with a conn and its first bytes")
  end
  for i, agent in ipairs(hook == "visitor" and given or {}) do
    if core.kind(agent) ~= "agent" then
      raise.error("agent %d of the list is a %s", i, type(agent))
    end
    world.core:know(agent)
  end
end

local function call_log(world, event)
  local record = { level = event.level or "info", msg = event.msg or "",
                   fields = event.fields or {} }
  local verdict = log.record(world, record)
  return verdict
end

function hooks.call(world, hook, handle, given)
  if hook == "log" then
    return call_log(world, handle)
  elseif hook == "tick" then
    return hooks.tick(world)
  elseif hook == "start" or hook == "save" or hook == "stop" then
    return run_to_end(world, hook, handle)
  end
  local kind = QUESTIONS[hook] or NEWS[hook]
  if not kind then
    raise.unknown("unknown hook", tostring(hook), load_policy.hooks)
  end
  check_handle(hook, handle, kind)
  check_given(world, hook, given)
  if handle.alive then
    world.core:know(handle)
  end
  local event = { hook = hook, handle = handle, given = given, verdict = {} }
  if is_busy(world) or (#world.queue > 0 and not QUESTIONS[hook]) then
    event.verdict.pending = true
    table.insert(world.queue, event)
  else
    hand_over(world, event)
  end
  return event.verdict
end

function hooks.box(world, handle)
  if not core.kind(handle) then
    raise.error("w.box takes a conn or an agent, not a %s", type(handle))
  end
  return world.policy.boxes[handle.id]
end

return hooks
