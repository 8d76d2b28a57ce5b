-- SPDX-License-Identifier: MIT
--
-- Visitors that come all the time, to a service behind `expose` and to an echo,
-- while the test kills what lies between. The test holds both ends of each
-- connection, and each is judged on its own:
--
-- - An end is told of a FIN only if the other one sent it, and then it has all
--   bytes that were sent before. Whatever it has got is what was sent.
-- - A reset needs a reason: something was killed since the connection was made,
--   or the other side's own reset.
-- - To connect is refused only while the test says that the relay is down.
--
-- It runs when the test turns it, and what is wrong is an error there.

local h = require("harness")
local sys = h.sys

local load = {}

local MARK <const> = 8     -- so many bytes of a visitor tell which it is
local BLOCK <const> = 32768
local BLOCKS <const> = 4   -- at most so many in one turn, for each end
local WIDTH <const> = 24   -- visitors at a time
local NEWCOMERS <const> = 3 -- in one turn

-- What there is to carry, `out` from the visitor and `back` to it. An end that
-- is `late` sends all but the mark when the other has sent its FIN; `step` is
-- for a slow one; after `quits` bytes it resets the connection.
local kinds = {
  { name = "ask", out = 2000, back = 3000, back_late = true },
  { name = "both", out = 1 << 20, back = 1 << 20 },
  { name = "told", out = 300000, back = 100000, out_late = true },
  { name = "slow", out = 20000, back = 20000, step = 200 },
  { name = "short", out = MARK, back = 1 },
  { name = "quitter", out = 500000, back = 500000, quits = 100000 },
}
local echo_kinds = {
  { name = "echo", out = 2000 },
  { name = "long echo", out = 1 << 20 },
  { name = "slow echo", out = 20000, step = 200 },
}

-- ---- one end ----------------------------------------------------------------

local End = {}
End.__index = End

local function new_end(socket, seed, total, late, step)
  return setmetatable({ socket = socket, seed = seed, total = total,
    late = late, step = step or BLOCK, sent = 0, got = 0 }, End)
end

function End:finish(how)
  self.how = how
  self.socket:close()
end

function End:send()
  local allowed = self.late and not self.eof and
    math.min(MARK, self.total) or self.total
  for _ = 1, self.step == BLOCK and BLOCKS or 1 do
    local count = math.min(self.step, allowed - self.sent)
    if count == 0 then
      break
    end
    local taken = self.socket:try_send(sys.pattern(self.seed, self.sent, count))
    if not taken then -- told now, it is not told again to who reads
      return self:finish("reset")
    end
    self.sent = self.sent + taken
  end
  if self.sent == self.total and not self.shut then
    self.shut = self.socket:shutdown()
    if not self.shut then
      self:finish("reset")
    end
  end
end

-- Takes what is there; an error if it is not what `other` sent.
function End:take(other)
  for _ = 1, BLOCKS do
    local bytes, why = self.socket:recv(0, BLOCK)
    if not bytes then
      return why
    elseif bytes ~= sys.pattern(other.seed, self.got, #bytes) or
      self.got + #bytes > other.sent then
      error(("not what was sent, after %d bytes"):format(self.got), 0)
    end
    self.got = self.got + #bytes
  end
end

function End:receive(other)
  local why = self:take(other)
  if why == "eof" then
    self.eof = true
    if not other.shut or self.got ~= other.sent then
      error(("a FIN after %d bytes of %d, %s"):format(self.got, other.sent,
        other.shut and "all there were" or "and more to come"), 0)
    end
  elseif why == "reset" then
    self:finish("reset")
  elseif why and why ~= "timeout" then
    error(why, 0)
  end
end

function End:turn(other, readable)
  if not self.how and readable and not self.eof then
    self:receive(other)
  end
  if not self.how then
    self:send()
  end
  if not self.how and self.eof and self.shut then
    self:finish("exact")
  end
end

-- ---- one connection ---------------------------------------------------------

local Load = {}
Load.__index = Load

-- load.new(): with `listener`, the service, and nobody comes before `expose` or
-- `echo` is set, to the ports to come to.
function load.new()
  return setmetatable({
    listener = assert(sys.listen()),
    streams = {},  -- those that are under way
    marks = {},    -- those that the service has not met, by their marks
    strangers = {}, -- what came to the service and has not said who it is
    number = 0,
    cuts = 0,      -- how often something was killed
    counts = { exact = 0, reset = 0, refused = 0, bytes = 0 },
  }, Load)
end

function Load:connect(port, kind, echo)
  local socket, why = sys.connect("127.0.0.1", port)
  if not socket then
    local cut = self.cutting and why == "reset"
    if not cut and not self.down then
      error(("refused at port %d: %s"):format(port, why), 0)
    end
    why = cut and "reset" or "refused"
    self.counts[why] = self.counts[why] + 1
    return
  end
  self.number = self.number + 1
  local stream = { kind = kind, born = self.cuts, port = port,
    number = self.number }
  local seed = 2 * self.number
  stream.visitor = new_end(socket, seed, kind.out, kind.out_late, kind.step)
  if echo then
    stream.service = stream.visitor
  else
    stream.service = new_end(nil, seed + 1, kind.back, kind.back_late,
      kind.step)
    self.marks[sys.pattern(seed, 0, MARK)] = stream
  end
  table.insert(self.streams, stream)
end

function Load:come()
  local targets = { { self.expose, kinds }, { self.echo, echo_kinds, true } }
  for i = 1, NEWCOMERS do
    local target = targets[1 + (self.number + i) % 2]
    if not self.closing and target[1] and #self.streams < WIDTH then
      local list = target[2]
      self:connect(target[1], list[1 + self.number // 2 % #list], target[3])
    end
  end
end

-- ---- the service ------------------------------------------------------------

-- Reads who it is. One that is cut before that is as good as never there; but
-- it is cut, and not ended.
local function meet(self, stranger)
  local bytes, why = stranger.socket:recv(0, MARK - #stranger.said)
  if bytes then
    stranger.said = stranger.said .. bytes
  elseif why == "reset" then
    stranger.socket:close()
    return true
  elseif why ~= "timeout" then
    error(("the service is told '%s' after %d bytes"):format(
      why, #stranger.said), 0)
  end
  local stream = self.marks[stranger.said]
  if stream then
    self.marks[stranger.said] = nil
    stream.service.socket, stream.service.got = stranger.socket, MARK
    if stream.over then -- for its visitor, that is
      table.insert(self.streams, stream)
    end
  elseif #stranger.said == MARK then
    error("somebody else's bytes came to the service", 0)
  end
  return stream ~= nil
end

function Load:serve()
  repeat
    local socket = self.listener:accept(0)
    if socket then
      table.insert(self.strangers, { socket = socket, said = "" })
    end
  until not socket
  for i = #self.strangers, 1, -1 do
    if meet(self, self.strangers[i]) then
      table.remove(self.strangers, i)
    end
  end
end

-- ---- all of it --------------------------------------------------------------

local function ends_of(stream)
  local visitor, service = stream.visitor, stream.service
  if visitor == service then
    return { visitor }
  end
  return { visitor, service }
end

function Load:judge(stream)
  local may_be_cut = stream.born < self.cuts or self.cutting or stream.quit
  for _, one in ipairs(ends_of(stream)) do
    if one.how == "reset" and not may_be_cut then
      error("reset, and nothing was killed since it came", 0)
    end
  end
end

local function turn_stream(stream, readable)
  local visitor, service = stream.visitor, stream.service
  visitor:turn(service, readable[visitor.socket])
  if service ~= visitor and service.socket then
    service:turn(visitor, readable[service.socket])
  end
  if stream.kind.quits and not visitor.how and
    visitor.sent >= stream.kind.quits then
    stream.quit = true
    visitor.socket:reset()
    visitor:finish("quit")
  end
end

local function is_over(stream)
  local visitor, service = stream.visitor, stream.service
  return visitor.how and (service.how or not service.socket)
end

function Load:finish_stream(stream)
  local how, counts = stream.visitor.how, self.counts
  if stream.over then
    return
  end
  stream.over = true
  counts[how] = (counts[how] or 0) + 1
  counts.bytes = counts.bytes + stream.visitor.got
end

function Load:readable()
  local sockets, readable = { self.listener }, {}
  for _, stream in ipairs(self.streams) do
    for _, one in ipairs(ends_of(stream)) do
      if one.socket and not one.how and not one.eof then
        table.insert(sockets, one.socket)
      end
    end
  end
  for _, socket in ipairs(sys.poll(sockets, "r", 0.001)) do
    readable[socket] = true
  end
  return readable
end

-- Moves what can be moved.
function Load:turn()
  self:come()
  self:serve()
  local readable = self:readable()
  for i = #self.streams, 1, -1 do
    local stream = self.streams[i]
    local ok, why = pcall(function()
      turn_stream(stream, readable)
      self:judge(stream)
    end)
    if not ok then
      error(("connection %d, %s, at port %d: %s"):format(stream.number,
        stream.kind.name, stream.port, why), 0)
    end
    if is_over(stream) then
      self:finish_stream(stream)
      table.remove(self.streams, i)
    end
  end
end

function Load:turn_until(what, ask, seconds)
  return h.wait_until(what, function()
    self:turn()
    return ask()
  end, seconds)
end

function Load:turns(count)
  for _ = 1, count do
    self:turn()
  end
end

-- What happens in `act` cuts whoever is there. Who comes later has no reason to
-- be cut.
function Load:cut(act)
  self.cutting = true
  act()
  self.cutting = false
  self.cuts = self.cuts + 1
end

function Load:await_end(process)
  self:turn_until(process.name .. " has ended", function()
    return not process:running()
  end)
end

function Load:kill(process)
  self:cut(function()
    process:kill("KILL")
    self:await_end(process)
  end)
end

-- Waits for a program's line, as wait_line does.
function Load:await_line(process, pattern)
  local line = self:turn_until(process.name .. " says " .. pattern, function()
    local got = process:read_line(0)
    if not got and not process:running() then
      error(process.name .. " has ended: " .. process:log(), 0)
    end
    return got and got:find(pattern) and got
  end, 30)
  return line:match(pattern)
end

-- The port of a program's (next) address.
function Load:await_address(agent)
  local port = self:await_line(agent,
    "^established relay address: %(.*, (%d+)%)$")
  agent.port = math.tointeger(port)
  return agent.port
end

-- Nobody comes any more; who is there has to come to an end. What became of
-- all: counts of `exact`, `reset`, `quit`, `refused` and `bytes`.
function Load:close()
  self.closing = true
  self:turn_until("all have come to an end", function()
    return #self.streams == 0 and #self.strangers == 0
  end, 30)
  self.listener:close()
  return self.counts
end

return load
