-- SPDX-License-Identifier: MIT
--
-- Log records: the policy's own, those about its failures, and the `log` hook,
-- which may not wait and never runs within itself. What would be written is
-- kept for the test: { level=, msg=, fields= }, or { level=, line= } for a
-- line that the hook made.

local raise = require("relay.testing.raise")
local tasks = require("relay.testing.tasks")

local log = {}

local REPEAT_MS = 10000
local ERRORS_KEPT = 16

local function call_hook(hook, event)
  local answer = hook(event)
  if type(answer) == "string" then
    return { line = answer }
  elseif answer == false then
    return { drop = true }
  elseif answer ~= nil and answer ~= true then
    error(("log returned a %s; it may return a string or false"):format(
      raise.type(answer)), 0)
  end
  return {}
end

-- What the hook says of a record: {}, { line = }, { drop = true }, or
-- { error = } when it failed. `told` is not called for that one.
function log.ask(world, record)
  local policy = world.policy
  if not policy or policy.in_log or not policy.hooks.log then
    return {}
  end
  policy.in_log = true
  local event = { level = record.level, msg = record.msg, fields = {},
                  conn = record.fields.conn }
  for key, value in pairs(record.fields) do
    event.fields[key] = value
  end
  local verdict, why = tasks.protect(policy, world.budget_ms, call_hook,
    policy.hooks.log, event)
  if not verdict then
    log.failure(world, "log", why)
    verdict = { error = tasks.first_line(why) }
  end
  policy.in_log = false
  return verdict
end

-- A record, past the hook into the list. Returns the hook's verdict.
function log.record(world, record)
  record.fields = record.fields or {}
  local verdict = log.ask(world, record)
  if verdict.line then
    table.insert(world.logs, { level = record.level, line = verdict.line })
  elseif not verdict.drop then
    table.insert(world.logs, record)
  end
  return verdict
end

-- ---- failures ---------------------------------------------------------------

-- Whether to tell of it, and how often it was not told of since.
local function is_due(world, text)
  local now_ms = world.clock.now_ms
  local found, oldest
  for _, known in ipairs(world.errors) do
    if known.text == text then
      found = known
    end
    if not oldest or known.logged_ms < oldest.logged_ms then
      oldest = known
    end
  end
  if found and now_ms - found.logged_ms < REPEAT_MS then
    found.repeated = found.repeated + 1
    return false
  end
  if not found and #world.errors < ERRORS_KEPT then
    found = { repeated = 0 }
    table.insert(world.errors, found)
  elseif not found then
    found = oldest
    found.repeated = 0
  end
  local repeated = found.repeated
  found.text, found.logged_ms, found.repeated = text, now_ms, 0
  return true, repeated
end

-- Once in a while if it is always the same.
function log.failure(world, where, why)
  local text = tasks.first_line(why)
  local due, repeated = is_due(world, where .. ": " .. text)
  if due then
    log.record(world, { level = "error", msg = "policy hook failed", fields = {
      hook = where, error = text,
      traceback = why:match("\nstack traceback:\n(.*)"),
      repeated = repeated > 0 and repeated or nil,
    } })
  end
end

return log
