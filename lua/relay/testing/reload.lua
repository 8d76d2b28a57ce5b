-- SPDX-License-Identifier: MIT
--
-- From one script to the next: load, save (old), start (new), listen, swap,
-- stop (old), drain. From save to swap events queue. Whatever fails before the
-- swap leaves the old one in force.

local background = require("relay.testing.background")
local boxes = require("relay.testing.boxes")
local hooks = require("relay.testing.hooks")
local tasks = require("relay.testing.tasks")

local reload = {}

local DRAIN_LOOK_MS = 50

-- ---- shared listeners -------------------------------------------------------

local function declares(policy, port)
  for _, listen in ipairs(policy and policy.listens or {}) do
    if listen.port == port then
      return listen
    end
  end
end

local function close_listens(world, policy, count, other)
  for i = 1, count do
    local port = policy.listens[i].port
    if not declares(other, port) then
      world.core:unlisten(port)
    end
  end
end

-- Opens what the policy declares and `before` does not. nil, or why not.
function reload.open_listens(world, policy, before)
  for i, listen in ipairs(policy.listens) do
    local old, why = declares(before, listen.port), nil
    if not old then
      why = world.core:listen(listen.port, listen.host)
    elseif old.host ~= listen.host then
      why = "EADDRINUSE" -- by itself, on another host
    end
    if why then
      close_listens(world, policy, i - 1, before)
      return ("%s: relay.listen: port %d: %s"):format(
        policy.path, listen.port, boxes.text_of(why))
    end
  end
end

-- ---- the old one ------------------------------------------------------------

-- Kills what of it still waits.
function reload.close(policy)
  background.stop_everies(policy)
  for task in pairs(policy.tasks) do
    tasks.kill(task)
  end
end

local function look(policy, patience_ms)
  local world = policy.world
  if next(policy.tasks) and patience_ms > 0 then
    world.clock:after(DRAIN_LOOK_MS, function()
      look(policy, patience_ms - DRAIN_LOOK_MS)
    end)
    return
  end
  world.retired[policy] = nil
  reload.close(policy)
end

local function retire(policy)
  local world = policy.world
  world.retired[policy] = true
  background.stop_everies(policy)
  hooks.run_life(policy, "stop", "reload", function(task)
    if task then
      world:log_failure(task, "stop")
    end
  end)
  look(policy, world.drain_ms)
end

-- ---- the new one ------------------------------------------------------------

local function finish(world)
  world.frozen, world.reloading, world.coming = false, false, nil
end

local function roll_back(world, hook, why)
  why = tasks.first_line(why)
  if world.coming then
    reload.close(world.coming)
  end
  finish(world)
  world.reload_error = why
  world:log("error", "policy not reloaded", { reason = why, hook = hook })
end

local function swap(world)
  local old, new = world.policy, world.coming
  local why = reload.open_listens(world, new, old)
  if why then
    roll_back(world, nil, why)
    return
  end
  world.policy, world.tick_ms = new, 1000
  close_listens(world, old, #old.listens, new)
  world:log("info", "policy reloaded")
  retire(old)
  finish(world)
  hooks.drain_queue(world)
end

local function start(world, saved)
  hooks.run_life(world.coming, "start", saved, function(task)
    if task and task.error then
      roll_back(world, "start", task.error)
    else
      swap(world)
    end
  end)
end

local function same(a, b)
  for key, value in pairs(a) do
    if b[key] ~= value then
      return false
    end
  end
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  return true
end

function reload.begin(world)
  local policy, why = world:load(world.next_path or world.policy.path)
  world.reloading, world.coming, world.reload_error = true, policy, nil
  if not policy then
    roll_back(world, nil, why)
  elseif not same(world.policy.options, policy.options) then
    roll_back(world, nil,
      "its options differ, and cannot change while the relay runs")
  else
    world.frozen = true
    hooks.run_life(world.policy, "save", nil, function(task)
      if task and task.error then
        roll_back(world, "save", task.error)
      else
        start(world, task and task.verdict.saved)
      end
    end)
  end
end

-- Reloads, and lets as much time pass as its hooks wait. true; or nil and why.
function reload.run(world, path)
  world.next_path, world.reload_wanted = path, true
  world:run_until("the reload", function()
    return not world.reload_wanted and not world.reloading
  end, 3 * world.wait_ms / 1000 + 1)
  if world.reload_error then
    return nil, world.reload_error
  end
  return true
end

return reload
