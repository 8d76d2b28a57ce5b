-- SPDX-License-Identifier: MIT
--
-- What a policy runs beside its hooks: spawn, once, from the next turn of the
-- loop, and every, again and again until its function returns false.

local raise = require("relay.testing.raise")
local tasks = require("relay.testing.tasks")

local background = {}

-- ---- beside the hooks -------------------------------------------------------

-- From the next turn of the loop.
function background.spawn(policy, ...)
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
function background.run_spawned(world)
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
      if task.verdict and task.verdict.no_more then
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

function background.every(policy, ...)
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

function background.stop_everies(policy)
  for every in pairs(policy.everies) do
    stop(every)
  end
end

return background
