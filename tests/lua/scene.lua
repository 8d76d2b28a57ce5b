-- SPDX-License-Identifier: MIT
--
-- A scene is a relay, an `expose` and the local service it leads to, which is
-- a listening socket of the test: so the test holds both ends of everything
-- that is relayed. When it is left, both programs must have no socket more
-- than when it was entered.

local lu = require("luaunit")
local h = require("harness")
local sys = h.sys

local scene = {}

local Scene = {}
Scene.__index = Scene

-- What a relay with one agent has open at rest, and what an agent has: their
-- listeners and the control connection.
local RELAY_SOCKETS <const> = 3
local AGENT_SOCKETS <const> = 1
-- Nothing taken for so many seconds: nobody reads any more.
local STALLED <const> = 0.15

local function arguments_of(list, extra)
  local copy = { table.unpack(list or {}) }
  for key, value in pairs(extra) do
    copy[key] = value
  end
  return copy
end

-- open{pool=N, relay={ARGUMENT, …}, expose={ARGUMENT, …},
--      listen={OPTIONS of the service}}
function scene.open(options)
  options = options or {}
  local self = setmetatable({ sockets = {} }, Scene)
  self.pool = options.pool or 0
  self.listener = assert(sys.listen(options.listen))
  self.relay = h.start_relay(arguments_of(options.relay, {}))
  local arguments = arguments_of(options.expose, {})
  table.insert(arguments, "--pool")
  table.insert(arguments, self.pool)
  self.agent = h.start_expose(self.relay, self.listener, arguments)
  self:settle(0)
  return self
end

-- How many sockets a program has open.
function scene.sockets(process)
  local _, list = process:fds()
  local count = 0
  for _, what in ipairs(list) do
    if what:find("socket:", 1, true) then
      count = count + 1
    end
  end
  return count
end

function scene.wait_sockets(process, count)
  local last
  local ok = pcall(h.wait_until, "", function()
    last = scene.sockets(process)
    return last == count
  end)
  if not ok then
    error(("%s: %d sockets, expected %d"):format(process.name, last, count), 2)
  end
end

-- Waits until both programs hold `pairs` pairs, a full pool and no more.
function Scene:settle(pairs)
  scene.wait_sockets(self.relay, RELAY_SOCKETS + self.pool + 2 * pairs)
  scene.wait_sockets(self.agent, AGENT_SOCKETS + self.pool + 2 * pairs)
end

function Scene:keep(...)
  for _, socket in ipairs({ ... }) do
    table.insert(self.sockets, socket)
  end
  return ...
end

function Scene:visit(options)
  return self:keep(h.connect(self.agent, options))
end

-- A visitor and the end of it at the service.
function Scene:join(options)
  return self:keep(h.join(self.agent, self.listener, options))
end

-- Both ends of a connection, the one that is to act first: "visitor" or
-- "service".
function Scene:join_from(who, options)
  local visitor, served = self:join(options)
  if who == "visitor" then
    return visitor, served
  end
  return served, visitor
end

-- The same once both programs have joined them: a byte has gone each way.
function Scene:joined_from(who, options)
  local first, last = self:join_from(who, options)
  first:send("?")
  lu.assertEquals(last:recv(), "?")
  last:send("!")
  lu.assertEquals(first:recv(), "!")
  return first, last
end

function Scene:leave()
  for _, socket in ipairs(self.sockets) do
    socket:close()
  end
  self:settle(0)
end

-- Adds test(scene, variant) to a set of tests, for each mode, without a pool
-- and with one. `options` as scene.open takes them, and `pools`, `variants`,
-- `modes`.
function scene.each(tests, name, options, test)
  for _, pool in ipairs(options.pools or { 0, 2 }) do
    for _, variant in ipairs(options.variants or { false }) do
      local full = name .. (variant and "_" .. variant or "")
      h.each_mode(tests, full .. (pool == 0 and "_bare" or "_pool"), function()
        local s = scene.open(arguments_of({}, {
          pool = pool, relay = options.relay, expose = options.expose,
          listen = options.listen }))
        test(s, variant)
        s:leave()
      end, options.modes)
    end
  end
end

scene.both_sides = { "visitor", "service" }

-- ---- bytes -----------------------------------------------------------------

-- Sends the pattern of a seed, so many bytes at a time, until no more are
-- taken; how many were. A kernel that packs what it holds into less room may
-- take some more every few milliseconds, for minutes: that is the end, too.
function scene.fill(socket, seed, step)
  local sent, before, since = 0, 0, sys.now()
  repeat
    local taken, why = socket:try_send(sys.pattern(seed, sent, step or 65536))
    if not taken then
      error("cannot send: " .. why, 2)
    end
    sent = sent + taken
    if taken == 0 and sys.now() - since > 2 then
      if sent - before < sent // 50 then
        break
      end
      before, since = sent, sys.now()
    end
  until taken == 0 and not socket:wait("w", STALLED)
  return sent
end

-- Takes `count` bytes of a pattern, so many at a time, and compares them.
function scene.take(socket, seed, count, step)
  local at = 0
  while at < count do
    local bytes, why = socket:recv(nil, math.min(step, count - at))
    if not bytes then
      error(("%s after %d of %d bytes"):format(why, at, count), 2)
    end
    if bytes ~= sys.pattern(seed, at, #bytes) then
      error(("not what was sent, after %d bytes"):format(at), 2)
    end
    at = at + #bytes
  end
end

-- Waits until all that was sent has reached the other kernel.
function scene.await_sent(socket)
  h.wait_until("all is acknowledged", function()
    return socket:outq() == 0
  end)
end

function scene.expect_eof(socket)
  lu.assertEquals({ socket:recv() }, { nil, "eof" })
end

function scene.expect_reset(socket)
  lu.assertEquals({ socket:recv() }, { nil, "reset" })
end

-- For an end that has had the other side's FIN already: reading tells it no
-- more, writing does.
function scene.expect_reset_of_sender(socket)
  h.wait_until("writing meets a reset", function()
    return select(2, socket:try_send("x")) == "reset"
  end)
end

-- ---- what the system says --------------------------------------------------

-- All TCP connections of the machine: {from=PORT, to=PORT, tx=, rx=}. What
-- `tx` counts is sent and not acknowledged, `rx` is received and not read.
function scene.queues()
  h.need("ss")
  local list = {}
  local ss = assert(io.popen(h.which("ss") .. " -tnH state established " ..
    "state close-wait state fin-wait-1 state fin-wait-2"))
  local text = ss:read("a")
  ss:close()
  for rx, tx, from, to in text:gmatch(
    "(%d+)%s+(%d+)%s+%S+:(%d+)%s+%S+:(%d+)[^\n]*\n") do
    table.insert(list, { rx = math.tointeger(rx), tx = math.tointeger(tx),
      from = math.tointeger(from), to = math.tointeger(to) })
  end
  return list
end

-- What the other side of a connection has received and not read.
local function unread(socket)
  local _, near = socket:address()
  local _, far = socket:peer()
  for _, other in ipairs(scene.queues()) do
    if other.from == far and other.to == near then
      return other.rx
    end
  end
  error("the connection has no other side", 2)
end

-- Sends the pattern of a seed until the program at the other side takes in no
-- more, while its kernel still has room; how much was sent.
function scene.fill_program(socket, seed)
  local sent, block = 0, 16384
  local function is_stuck(seconds)
    local deadline = sys.now() + seconds
    repeat
      if unread(socket) == 0 then
        return false
      end
      sys.sleep(0.002)
    until sys.now() > deadline
    return true
  end
  repeat
    assert(socket:send(sys.pattern(seed, sent, block)))
    sent = sent + block
  until is_stuck(STALLED)
  return sent
end

-- Both programs at rest, whatever is pending, use next to no time.
function Scene:expect_no_spin()
  local function used()
    return self.relay:usage().cpu + self.agent:usage().cpu
  end
  local before, span = used(), 0.25
  sys.sleep(span)
  local share = (used() - before) / span
  if share > 0.25 then
    error(("at rest they use %.0f %% of a core"):format(share * 100), 2)
  end
end

return scene
