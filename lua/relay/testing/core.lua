-- SPDX-License-Identifier: MIT
--
-- What the relay itself would do, for a policy without one: a list of conns
-- and agents that are there, and a record of what is done to them.
--
-- A test holds the relay's side of a conn or an agent: a plain table of these
-- fields, all of which it may set. The policy is handed a box of it. Calls of a
-- policy return the name of an error, or nil when all went well.

local raise = require("relay.testing.raise")

local core = {}
core.__index = core

-- ---- conns and agents -------------------------------------------------------

-- The fields with their defaults; false stands for none.
local CONN = {
  id = false, addr = "192.0.2.1", port = 40000, listen_port = 8081,
  agent = false, bytes_in = 0, bytes_out = 0, duration = 0, reason = false,
  eof = false, alive = true,
  -- what the policy did:
  limits = false, tags = false, closed = false, peek = false,
}
local AGENT = {
  id = false, name = "", addr = "192.0.2.100", port = 0, conns = 0, since = 0,
  alive = true, limits = false, closed = false,
}

local last_id = 0

local function names_of(fields)
  local names = {}
  for name in pairs(fields) do
    table.insert(names, name)
  end
  table.sort(names)
  return names
end

local function class(kind, fields)
  local names = names_of(fields)
  local function check(key)
    if fields[key] == nil then
      raise.unknown(kind .. " has no field", tostring(key), names)
    end
  end
  return {
    kind = kind,
    fields = fields,
    check = check,
    __index = function(_, key) check(key) end,
    __newindex = function(handle, key, value)
      check(key)
      rawset(handle, key, value)
    end,
    __tostring = function(handle)
      return kind .. " " .. handle.id
    end,
  }
end

local classes = { conn = class("conn", CONN), agent = class("agent", AGENT) }

local function make(meta, given)
  local handle = {}
  for key, value in pairs(meta.fields) do
    handle[key] = value or nil
  end
  handle.eof = meta.fields.eof
  handle.limits = {}
  handle.tags = meta.fields.tags ~= nil and {} or nil
  last_id = last_id + 1
  handle.id = last_id
  for key, value in pairs(given or {}) do
    meta.check(key)
    local default = meta.fields[key]
    if default and type(value) ~= type(default) then
      raise.error("%s.%s must be a %s, not a %s", meta.kind, key,
        type(default), type(value))
    end
    handle[key] = value
  end
  return setmetatable(handle, meta)
end

function core.conn(given)
  return make(classes.conn, given)
end

function core.agent(given)
  return make(classes.agent, given)
end

-- "conn", "agent", or nil.
function core.kind(value)
  local meta = getmetatable(value)
  return type(meta) == "table" and classes[meta.kind] == meta and meta.kind
    or nil
end

-- ---- the relay --------------------------------------------------------------

-- options: `taken`, a list of ports that cannot be listened on.
function core.new(options)
  local taken = {}
  for _, port in ipairs(options.taken or {}) do
    taken[port] = true
  end
  return setmetatable({ handles = {}, order = {}, asked = {}, taken = taken,
                        ports = {}, stats = {} }, core)
end

function core:know(handle)
  if not self.handles[handle.id] then
    self.handles[handle.id] = handle
    table.insert(self.order, handle)
  end
  return handle
end

-- One that is there, by its id, or nil.
function core:get(id)
  local handle = self.handles[id]
  return handle and handle.alive and handle or nil
end

function core:forget(handle)
  handle.alive = false
  self.handles[handle.id] = nil
  for i, other in ipairs(self.order) do
    if other == handle then
      table.remove(self.order, i)
      break
    end
  end
end

-- Those of a kind that are there.
function core:list(kind)
  local found = {}
  for _, handle in ipairs(self.order) do
    if handle.alive and core.kind(handle) == kind then
      table.insert(found, handle)
    end
  end
  return found
end

function core.close(handle, why)
  handle.closed = why
  handle.alive = false
end

-- Numbers of bytes and seconds; those not named stay as they are.
function core.limit(handle, limits)
  for key, value in pairs(limits) do
    handle.limits[key] = value
  end
end

local TAG_LENGTH_MAX, TAGS_MAX = 256, 8

function core.tag(handle, key, value)
  local size = #key + 1 + (value and #value + 1 or 0)
  if key == "" or size > TAG_LENGTH_MAX then
    return "EINVAL"
  end
  handle.tags[key] = nil
  if value then
    local count = 0
    for _ in pairs(handle.tags) do
      count = count + 1
    end
    if count >= TAGS_MAX then
      return "ENOSPC"
    end
    handle.tags[key] = value
  end
end

-- Only while `visitor` decides.
function core:peek(handle, seconds)
  if not self.asked[handle] then
    return "EALREADY"
  end
  handle.peek = seconds
end

function core:listen(port, host)
  if self.taken[port] then
    return "EADDRINUSE"
  end
  self.ports[port] = host or true
end

function core:unlisten(port)
  self.ports[port] = nil
end

-- The shared ports that are open, as { port =, host = }.
function core:listens()
  local list = {}
  for port, host in pairs(self.ports) do
    table.insert(list, { port = port, host = host ~= true and host or nil })
  end
  table.sort(list, function(a, b)
    return a.port < b.port
  end)
  return list
end

local STATS = { "agents", "leases", "visitors", "pairs", "parked", "waiting",
                "unproven", "fds", "pipes", "agents_total", "visitors_total",
                "refused_total", "bytes_in", "bytes_out" }

-- What a test put into `stats`, and what can be counted.
function core:get_stats()
  local stats = { agents = #self:list("agent"), visitors = #self:list("conn") }
  for _, name in ipairs(STATS) do
    stats[name] = self.stats[name] or stats[name] or 0
  end
  return stats
end

-- A question begins, and is answered: who is denied has ended.
function core:ask(hook, handle)
  self.asked[handle] = hook == "visitor" or nil
end

function core:obey(handle, verdict)
  self.asked[handle] = nil
  if verdict.deny then
    self:forget(handle)
  end
end

return core
