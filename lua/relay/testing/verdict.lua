-- SPDX-License-Identifier: MIT
--
-- What hooks return, read by one convention: nil and true let pass (nil denies
-- in auth), false denies and may say why, else it is the thing chosen. Any
-- other type is an error.

local raise = require("relay.testing.raise")
local core = require("relay.testing.core")
local boxes = require("relay.testing.boxes")

local verdict = {}

local PEEK_MAX = 4096

-- How many bytes of a text are kept, as there.
local REASON_MAX, NAME_MAX, HOST_MAX = 255, 127, 255

local function cut(text, size)
  return text:sub(1, size):match("^%Z*")
end

local function wrong(hook, value, may)
  error(("%s returned a %s; it may return %s"):format(
    hook, raise.type(value), may), 0)
end

local function deny(hook, reason)
  if reason ~= nil and type(reason) ~= "string" then
    error(("%s returned false and a %s; the reason is a string"):format(
      hook, raise.type(reason)), 0)
  end
  return { deny = true, reason = reason and cut(reason, REASON_MAX) }
end

local function read_auth(answer, name)
  if answer == nil then
    return { deny = true, reason = "auth returned nothing" }
  end
  if type(answer) ~= "boolean" then
    wrong("auth", answer, "true, a name; or false, a reason")
  end
  if not answer then
    return deny("auth", name)
  end
  if name ~= nil and type(name) ~= "string" then
    error("auth returned true and no string; the name is a string", 0)
  end
  return { allow = true, name = name and cut(name, NAME_MAX) }
end

local function is_port(value)
  local port = type(value) == "number" and math.tointeger(value)
  return port and port >= 1 and port <= 65535
end

local ADDRESS_KEYS = { "port", "host", "share" }

local function read_address(address)
  local given = {}
  for key, value in pairs(address) do
    key = type(key) == "string" and key or "?"
    local ok = true
    if key == "port" then
      ok, given.port = is_port(value), value
    elseif key == "host" then
      ok, given.host = type(value) == "string", value
    elseif key == "share" then
      ok, given.share = type(value) == "boolean", value or nil
    else
      error(raise.suggest("allocate returned a table with the key", key,
        ADDRESS_KEYS), 0)
    end
    if not ok then
      error(("allocate returned a table whose %s is wrong"):format(key), 0)
    end
  end
  given.port = given.port and math.tointeger(given.port)
  given.host = given.host and cut(given.host, HOST_MAX)
  given.allow = not given.port or nil
  return given
end

local function read_allocate(answer)
  if type(answer) == "number" then
    if not is_port(answer) then
      error(("allocate returned %s, which is not a port"):format(answer), 0)
    end
    return { port = math.tointeger(answer) }
  end
  if raise.type(answer) ~= "table" then
    wrong("allocate", answer, "a port, {port=, host=, share=}, nil or false")
  end
  return read_address(answer)
end

local function read_choice(hook, answer, byte_count)
  local handle = boxes.handle_of(answer)
  if handle and core.kind(handle) == "agent" then
    return boxes.is_open(answer) and { agent = handle } or { allow = true }
  end
  if hook == "visitor" then
    wrong(hook, answer, "an agent, nil, true or false")
  end
  if type(answer) ~= "number" then
    wrong(hook, answer, "an agent, nil, true, false or a number of bytes")
  end
  local need = math.tointeger(answer)
  if need and need > byte_count and need <= PEEK_MAX then
    return { need = need }
  end
  error(("peek needs %s bytes, and was shown %d of at most %d"):format(
    answer, byte_count, PEEK_MAX), 0)
end

-- ---- plain values -----------------------------------------------------------

local DEPTH_MAX = 64
local OBJECTS = { ["function"] = "a function", thread = "a coroutine",
                  userdata = "an object" }

-- A copy that shares nothing, or nil and what is not plain.
local function copy(value, depth)
  local kind = raise.type(value)
  if OBJECTS[kind] then
    return nil, OBJECTS[kind]
  end
  if kind ~= "table" then
    return value
  end
  if depth >= DEPTH_MAX then
    return nil, "tables within tables without end"
  end
  local copied = {}
  for key, item in next, value do
    local why
    key, why = copy(key, depth + 1)
    if not why then
      item, why = copy(item, depth + 1)
    end
    if why then
      return nil, why
    end
    copied[key] = item
  end
  return copied
end

local function read_saved(answer)
  if answer == nil then
    return {}
  end
  if raise.type(answer) ~= "table" then
    wrong("save", answer, "a plain table or nil")
  end
  local saved, why = copy(answer, 0)
  if why then
    error(("save returned a table with %s in it"):format(why), 0)
  end
  return { saved = saved }
end

local function read_interval(answer)
  if answer == nil then
    return {}
  elseif type(answer) ~= "number" then
    wrong("tick", answer, "a number of seconds or nil")
  elseif not (answer > 0 and answer < 1e9) then
    error(("tick returned %s, which is not an interval"):format(answer), 0)
  end
  return { next = answer }
end

-- The verdict; raises when the results are not what the hook may give.
function verdict.read(hook, byte_count, answer, second)
  if hook == "auth" then
    return read_auth(answer, second)
  elseif hook == "save" then
    return read_saved(answer)
  elseif hook == "tick" then
    return read_interval(answer)
  elseif hook == "every" then
    return { no_more = answer == false }
  elseif hook ~= "allocate" and hook ~= "visitor" and hook ~= "peek" then
    return {}
  elseif answer == nil or answer == true then
    return { allow = true }
  elseif answer == false then
    return deny(hook, second)
  elseif hook == "allocate" then
    return read_allocate(answer)
  end
  return read_choice(hook, answer, byte_count)
end

return verdict
