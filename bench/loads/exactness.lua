-- SPDX-License-Identifier: MIT
--
-- Whether a connection through a system ends as a direct one does: half-close
-- both ways, a FIN behind bytes that wait, resets, and bytes before a reset.
-- What holds is recorded as 1, else what came instead.

local h = require("harness")
local field = require("field")

local exactness = { name = "exactness" }
local sys = h.sys

local MIB <const> = 1 << 20
local PATIENCE <const> = 2 -- seconds

-- Raises unless `bytes` are the first of a pattern, and `count` of them.
local function check(bytes, seed, count)
  if #bytes < count then
    error(("cut after %d of %d bytes"):format(#bytes, count), 0)
  elseif bytes ~= sys.pattern(seed, 0, count) then
    error("other bytes than were sent", 0)
  end
end

-- Raises unless a socket's next event is its end, in that way.
local function expect_end(socket, expected)
  local bytes, how = socket:recv(PATIENCE)
  if bytes then
    error("bytes that nobody sent", 0)
  elseif how ~= expected then
    local words = { eof = "a FIN", reset = "a reset", timeout = "nothing" }
    error(("%s instead of %s"):format(words[how] or how, words[expected]), 0)
  end
end

-- ---- the rows ---------------------------------------------------------------

-- `first` ends, `last` goes on for longer than a moment.
local function half_close(first, last)
  first:send("request")
  first:shutdown()
  local got, how = last:recv_all(PATIENCE)
  if got ~= "request" or how ~= "eof" then
    error("the FIN came as " .. (how == "timeout" and "nothing" or how), 0)
  end
  sys.sleep(0.7)
  -- Where it was cut, sending fails here; what arrives tells how far it came.
  pcall(last.send, last, sys.pattern(1, 0, MIB))
  pcall(last.shutdown, last)
  check(first:recv_all(PATIENCE), 1, MIB)
  expect_end(first, "eof")
end

-- The reader starts late; what is sent is more than a hop holds at once.
local function fin_behind_bytes(first, last)
  local sent = 0
  while sent < 32 * MIB and first:wait("w", 0.2) do
    local taken = first:try_send(sys.pattern(1, sent, 65536))
    if not taken then
      error("cannot send", 0)
    end
    sent = sent + taken
  end
  first:shutdown()
  sys.sleep(0.3)
  check(last:recv_all(PATIENCE), 1, sent)
  expect_end(last, "eof")
end

local function reset(first, last)
  first:reset()
  expect_end(last, "reset")
end

local function bytes_then_reset(first, last)
  first:send(sys.pattern(1, 0, 100000))
  h.wait_until("the bytes are acknowledged", function()
    return first:outq() == 0
  end, PATIENCE)
  first:reset()
  check(last:recv_exact(100000, PATIENCE) or "", 1, 100000)
  expect_end(last, "reset")
end

exactness.rows = {
  { name = "1", what = "the visitor's FIN, the service goes on",
    play = half_close },
  { name = "2", what = "the service's FIN, the visitor goes on",
    play = half_close, back = true },
  { name = "3", what = "a FIN behind bytes that wait",
    play = fin_behind_bytes },
  { name = "4", what = "the visitor resets", play = reset },
  { name = "5", what = "the service resets", play = reset, back = true },
  { name = "6", what = "100 kB, then a reset, by the visitor",
    play = bytes_then_reset },
  { name = "6b", what = "100 kB, then a reset, by the service",
    play = bytes_then_reset, back = true },
}

-- ---- playing them -----------------------------------------------------------

-- Both ends of a connection through the system, over which a byte has gone
-- each way.
local function join(place, listener)
  local visitor = assert(sys.connect("127.0.0.1", place.port))
  visitor:send("?")
  local deadline = sys.now() + PATIENCE
  while true do -- what comes ahead of need says nothing
    local served = assert(listener:accept(deadline - sys.now()))
    if served:recv(0.5) == "?" then
      served:send("!")
      assert(visitor:recv(PATIENCE) == "!", "no byte came back")
      return visitor, served
    end
    served:close()
  end
end

local function play(place, listener, row)
  local visitor, served = join(place, listener)
  local first, last = visitor, served
  if row.back then
    first, last = served, visitor
  end
  local ok, why = field.try(row.play, first, last)
  visitor:close()
  served:close()
  return ok and 1 or (tostring(why):gsub("^%S+:%d+: ", ""))
end

function exactness.run(run)
  local listener = assert(sys.listen())
  local systems = field.open(run, exactness.name,
    { backend = listener:port() })
  for _, row in ipairs(exactness.rows) do
    systems:rounds(run.rounds.exactness, row.name, function(place, record)
      record("holds", play(place, listener, row))
    end)
  end
  systems:close()
  listener:close()
end

return exactness
