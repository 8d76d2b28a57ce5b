-- SPDX-License-Identifier: MIT
--
-- relay.kv: strings and numbers by name, which expire by the clock of the test
-- and outlive a reload.

local raise = require("relay.testing.raise")

local kv = {}

-- What an entry takes beside its texts, about.
local ENTRY_BYTES = 128

-- `clock` tells the time; `most_bytes` is what all entries together may take.
function kv.new(clock, most_bytes)
  return { clock = clock, most_bytes = most_bytes, bytes = 0, entries = {} }
end

local function size_of(key, entry)
  local value = entry.value
  return ENTRY_BYTES + #key + (type(value) == "string" and #value or 0)
end

local function drop(store, key)
  store.bytes = store.bytes - size_of(key, store.entries[key])
  store.entries[key] = nil
end

local function find(store, key)
  local entry = store.entries[key]
  if entry and entry.expires_ms and entry.expires_ms <= store.clock.now_ms then
    drop(store, key)
    return nil
  end
  return entry
end

local function put(store, key, entry)
  local old = find(store, key)
  local size = size_of(key, entry)
  if store.bytes - (old and size_of(key, old) or 0) + size
    > store.most_bytes then
    raise.error("relay.kv is full")
  end
  if old then
    drop(store, key)
  end
  store.entries[key] = entry
  store.bytes = store.bytes + size
  return entry
end

local function expiry(store, arguments, name)
  if arguments[3] == nil then
    return nil
  end
  return store.clock.now_ms + raise.check_seconds(arguments, 3, name)
end

-- ---- what a script calls ----------------------------------------------------

local function set(store, arguments)
  local key = raise.check_string(arguments, 1, "set")
  local expires_ms = expiry(store, arguments, "set")
  local value = arguments[2]
  if arguments.n < 2 or
    (value ~= nil and type(value) ~= "string" and type(value) ~= "number") then
    raise.wrong_type(arguments, 2, "set", "string or number")
  end
  if value == nil then
    local found = find(store, key)
    if found then
      drop(store, key)
    end
    return found ~= nil
  end
  put(store, key, { value = value, expires_ms = expires_ms })
  return true
end

-- The time to live counts from the first.
local function incr(store, arguments)
  local key = raise.check_string(arguments, 1, "incr")
  local expires_ms = expiry(store, arguments, "incr")
  local by = arguments[2]
  if by ~= nil then
    by = math.type(by) == "integer" and by
      or raise.check_number(arguments, 2, "incr") + 0.0
  end
  local entry = find(store, key)
    or put(store, key, { value = 0, expires_ms = expires_ms })
  if type(entry.value) == "string" then
    raise.error("relay.kv: '%s' is a string", key)
  end
  entry.value = entry.value + (by or 1)
  return entry.value
end

-- The table `relay.kv` over a store.
function kv.open(store)
  return {
    get = function(...)
      local arguments = table.pack(...)
      local entry = find(store, raise.check_string(arguments, 1, "get"))
      return entry and entry.value
    end,
    set = function(...)
      local answer = set(store, table.pack(...))
      return answer
    end,
    incr = function(...)
      local answer = incr(store, table.pack(...))
      return answer
    end,
    delete = function(...)
      local arguments = table.pack(...)
      local key = raise.check_string(arguments, 1, "delete")
      local found = find(store, key)
      if found then
        drop(store, key)
      end
      return found ~= nil
    end,
  }
end

-- What a test sees: all that is there, by name.
function kv.view(store)
  return setmetatable({}, {
    __index = function(_, key)
      local entry = find(store, key)
      return entry and entry.value
    end,
    __newindex = function(_, key, value)
      if value ~= nil then
        put(store, key, { value = value })
      elseif find(store, key) then
        drop(store, key)
      end
    end,
    __pairs = function()
      local all = {}
      for key in pairs(store.entries) do
        local entry = find(store, key)
        all[key] = entry and entry.value
      end
      return next, all, nil
    end,
  })
end

return kv
