-- SPDX-License-Identifier: MIT
--
-- Boxes: what a policy holds of conns and agents. Fields are asked of the
-- relay's side when they are read; an unknown one raises; after the end only
-- `alive`, `data` and tostring work. There is one box for each conn and policy
-- until the end is told; the last hook reads all fields still.

local raise = require("relay.testing.raise")
local core = require("relay.testing.core")

local boxes = {}

-- What is known of each box: handle, policy, data, dead, final.
local insides = setmetatable({}, { __mode = "k" })

local TEXTS = {
  EINVAL = "invalid argument",
  ENOSPC = "no space left on device",
  EADDRINUSE = "address already in use",
}

function boxes.text_of(name)
  return TEXTS[name]
end

-- ---- fields -----------------------------------------------------------------

local function raise_closed(inside)
  raise.error("%s is closed",
    inside.kind == "conn" and "connection" or "agent")
end

-- Raises once the box is closed.
local function check_open(inside)
  if inside.dead or inside.final or not inside.handle.alive or
    not inside.policy.world.core then
    raise_closed(inside)
  end
end

local function plain(key)
  return function(handle)
    return handle[key]
  end
end

local CONN_FIELDS = {
  id = plain("id"), addr = plain("addr"), port = plain("port"),
  listen_port = plain("listen_port"), bytes_in = plain("bytes_in"),
  bytes_out = plain("bytes_out"),
  agent = function(handle, inside)
    local agent = handle.agent
    return agent and agent.alive and boxes.push(inside.policy, agent) or nil
  end,
  duration = function(handle)
    return handle.duration + 0.0
  end,
  eof = function(_, inside)
    return inside.eof or false
  end,
  reason = function(handle, inside)
    return inside.final and (handle.closed or handle.reason or "ended") or nil
  end,
}

local AGENT_FIELDS = {
  id = plain("id"), name = plain("name"), addr = plain("addr"),
  conns = plain("conns"),
  ports = function(handle)
    return { handle.port ~= 0 and handle.port or nil }
  end,
  since = function(handle)
    return handle.since + 0.0
  end,
}

-- In the order of the C side, for suggestions.
local NAMES = {
  conn = { "id", "addr", "port", "listen_port", "agent", "bytes_in",
           "bytes_out", "duration", "reason", "eof", "alive", "data", "close",
           "limit", "tag", "peek" },
  agent = { "id", "name", "addr", "ports", "conns", "since", "alive", "data",
            "close", "limit" },
}

-- ---- methods ----------------------------------------------------------------

local function inside_of(arguments, name, kind)
  local inside = insides[arguments[1]]
  if not inside or (kind and inside.kind ~= kind) then
    raise.wrong_type(arguments, 1, name,
      kind and "relay." .. kind or "conn or agent")
  end
  return inside
end

local function result(name)
  if name then
    return nil, TEXTS[name]
  end
  return true
end

-- Closing what one is asked about is an answer: the hook ends as if it had
-- returned false, at its next wait if it does not return before.
local function close(...)
  local arguments = table.pack(...)
  local inside = inside_of(arguments, "close")
  local why = arguments[2] == nil and "closed by policy"
    or raise.check_string(arguments, 2, "close")
  check_open(inside)
  local task = inside.policy.current
  if task and task.question and task.subject == inside.handle then
    task.doomed = why:sub(1, 255)
  else
    core.close(inside.handle, why)
  end
  return true
end

local CONN_LIMITS = { "rate_in", "rate_out", "idle" }
local AGENT_LIMITS = { "rate_in", "rate_out" }

local function read_limit(key, value, scale)
  if value == false then
    return 0
  end
  if type(value) ~= "number" then
    raise.error("limit %s must be a number or false, not a %s", key,
      raise.type(value))
  end
  value = value * scale
  if not (value >= 0 and value < 9e15) then
    raise.error("limit %s is out of range", key)
  end
  return math.ceil(value)
end

local function limit(...)
  local arguments = table.pack(...)
  local inside = inside_of(arguments, "limit")
  check_open(inside)
  local is_conn = inside.kind == "conn"
  local limits = {}
  for key, value in next, raise.check_type(arguments, 2, "limit", "table") do
    key = type(key) == "string" and key or "?"
    if key == "rate_in" or key == "rate_out" then
      limits[key] = read_limit(key, value, 1)
    elseif key == "idle" and is_conn then
      limits[key] = read_limit(key, value, 1000) / 1000
    else
      raise.unknown("unknown limit", key,
        is_conn and CONN_LIMITS or AGENT_LIMITS)
    end
  end
  return result(core.limit(inside.handle, limits))
end

local function tag(...)
  local arguments = table.pack(...)
  local inside = inside_of(arguments, "tag", "conn")
  check_open(inside)
  local key = raise.check_text(arguments, 2, "tag")
  local value = arguments[3]
  return result(core.tag(inside.handle, key,
    value ~= nil and raise.printable(tostring(value)) or nil))
end

local function peek(...)
  local arguments = table.pack(...)
  local inside = inside_of(arguments, "peek", "conn")
  check_open(inside)
  local ms = raise.check_seconds(arguments, 2, "peek")
  if ms == 0 then
    raise.argument(2, "peek", "it cannot be 0")
  end
  if not inside.policy.hooks.peek then
    raise.error("the policy has no hook 'peek'")
  end
  if inside.policy.world.core:peek(inside.handle, ms / 1000) then
    raise.error("peek can be asked for in 'visitor' only")
  end
  return true
end

local CLASSES = {
  conn = { fields = CONN_FIELDS,
           methods = { close = close, limit = limit, tag = tag, peek = peek } },
  agent = { fields = AGENT_FIELDS,
            methods = { close = close, limit = limit } },
}

-- ---- boxes ------------------------------------------------------------------

local function index(box, key)
  local inside = insides[box]
  local class = CLASSES[inside.kind]
  if class.methods[key] then
    return class.methods[key]
  elseif key == "data" then
    return inside.data
  elseif key == "alive" then
    return not inside.dead and not inside.final and inside.handle.alive and
      inside.policy.world.core ~= nil
  elseif not class.fields[key] then
    raise.unknown(inside.kind .. " has no field", tostring(key),
      NAMES[inside.kind])
  end
  if not inside.final then
    check_open(inside)
  end
  return class.fields[key](inside.handle, inside)
end

local function new_index(box, key, value)
  local inside = insides[box]
  if key ~= "data" then
    raise.error("%s.%s cannot be assigned; only data can", inside.kind,
      tostring(key))
  end
  inside.data = value
end

local function to_string(box)
  local inside = insides[box]
  return ("%s %d"):format(inside.kind, inside.handle.id)
end

for kind, class in pairs(CLASSES) do
  class.meta = { __index = index, __newindex = new_index,
                 __tostring = to_string, __name = "relay." .. kind,
                 __metatable = "relay." .. kind, is_object = true }
end

-- The policy's box of a conn or an agent.
function boxes.push(policy, handle)
  local box = policy.boxes[handle.id]
  if not box then
    local kind = core.kind(handle)
    box = setmetatable({}, CLASSES[kind].meta)
    insides[box] = { kind = kind, handle = handle, policy = policy }
    policy.boxes[handle.id] = box
  end
  return box
end

-- The box in its last hook.
function boxes.push_final(policy, handle)
  local box = boxes.push(policy, handle)
  insides[box].final = true
  return box
end

function boxes.set_eof(box, eof)
  insides[box].eof = eof
end

function boxes.forget(policy, handle)
  local box = policy.boxes[handle.id]
  if box then
    insides[box].dead, insides[box].final = true, nil
    policy.boxes[handle.id] = nil
  end
end

-- The relay's side of a box; nil when the value is none.
function boxes.handle_of(value)
  local inside = insides[value]
  return inside and inside.handle
end

function boxes.is_open(box)
  local inside = insides[box]
  return not inside.dead and not inside.final
end

-- Fields and methods by kind.
boxes.names = NAMES

function boxes.is_method(kind, name)
  return CLASSES[kind].methods[name] ~= nil
end

return boxes
