-- SPDX-License-Identifier: MIT
--
-- Readers that are slow or stand still: the sender waits, nobody's memory
-- grows, nobody else is slowed, and nothing is lost when they go on.

local lu = require("luaunit")
local h = require("harness")
local scene = require("scene")
local sys = h.sys

local T = {}

local MIB <const> = 1 << 20
-- What one direction may hold in one program: its pipe and unsent bytes.
local HELD_MAX <const> = 512 * 1024

-- A visitor that is another process, so that it can be stopped: it keeps all
-- it gets, and ends after the end.
local function start_nc(s)
  h.need("nc")
  local nc = h.start({ "nc", "127.0.0.1", s.agent.port, stdout = "memory" })
  local served = s:keep(assert(s.listener:accept()))
  served:send("first")
  h.wait_until("it reads", function()
    return nc:text() == "first"
  end)
  return nc, served
end

-- Bytes in the queues of all sockets of a scene, and the most that one of its
-- two programs has sent and not got rid of.
local function queued(s)
  local total, unsent = 0, 0
  local ports = { [s.relay.port] = true, [s.agent.port] = true,
                  [s.listener:port()] = true }
  for _, socket in ipairs(scene.queues()) do
    if ports[socket.from] or ports[socket.to] then
      total = total + socket.tx + socket.rx
      if socket.to ~= s.agent.port and socket.from ~= s.listener:port() then
        unsent = math.max(unsent, socket.tx)
      end
    end
  end
  return total, unsent
end

-- When nothing moves any more: what the programs hold themselves, and what
-- they have put into the kernel unsent, is bounded.
local function expect_bounded(s, sent, rss)
  local total, unsent = queued(s)
  local held = sent - total
  lu.assertTrue(held <= 2 * HELD_MAX, ("%d bytes are held"):format(held))
  lu.assertTrue(unsent <= HELD_MAX, ("%d bytes are unsent"):format(unsent))
  lu.assertTrue(held + unsent <= 2 * HELD_MAX)
  if not h.sanitized then
    for _, program in ipairs({ s.relay, s.agent }) do
      local grown = program:usage().rss - rss[program]
      lu.assertTrue(grown < 4 * MIB, ("%s has grown by %d bytes"):format(
        program.name, grown))
    end
  end
end

local function memory(s)
  return { [s.relay] = s.relay:usage().rss, [s.agent] = s.agent:usage().rss }
end

-- ---- back-pressure ----------------------------------------------------------

scene.each(T, "test_stalled_reader",
  { pools = { 0 }, variants = scene.both_sides },
  function(s, who)
    local sender, reader = s:joined_from(who)
    local rss = memory(s)
    local sent = scene.fill(sender, 1)
    expect_bounded(s, sent, rss)
    s:expect_no_spin()
    scene.take(reader, 1, sent, 65536)
    h.exchange(sender, reader, MIB)
  end)

-- Both ends send and neither reads, till both are full; then both are read.
scene.each(T, "test_stalled_both_ways", { pools = { 2 } }, function(s)
  local visitor, served = s:joined_from("visitor")
  local to_service = scene.fill(visitor, 1)
  local to_visitor = scene.fill(served, 2)
  s:expect_no_spin()
  scene.take(served, 1, to_service, 65536)
  scene.take(visitor, 2, to_visitor, 65536)
  h.exchange(visitor, served, MIB)
end)

scene.each(T, "test_stopped_visitor", { pools = { 2 } }, function(s)
  local nc, served = start_nc(s)
  local rss = memory(s)
  nc:kill("STOP")
  local sent = scene.fill(served, 1)
  expect_bounded(s, sent, rss)
  served:shutdown()
  nc:kill("CONT")
  lu.assertEquals({ nc:wait(20) }, { "exit", 0 })
  lu.assertTrue(nc:text() == "first" .. sys.pattern(1, 0, sent))
end)

-- The agent itself stands still for a while, and with it all that it serves.
scene.each(T, "test_stopped_agent", {}, function(s)
  local visitor, served = s:joined_from("visitor")
  local rss = memory(s)
  s.agent:kill("STOP")
  local sent = scene.fill(visitor, 1)
  expect_bounded(s, sent, rss)
  s.agent:kill("CONT")
  scene.take(served, 1, sent, 65536)
  h.exchange(visitor, served, MIB)
end)

scene.each(T, "test_stopped_relay", {}, function(s)
  local visitor, served = s:joined_from("visitor")
  s.relay:kill("STOP")
  local to_service = scene.fill(visitor, 1)
  local to_visitor = scene.fill(served, 2)
  visitor:shutdown()
  s.relay:kill("CONT")
  scene.take(served, 1, to_service, 65536)
  scene.expect_eof(served)
  scene.take(visitor, 2, to_visitor, 65536)
  served:shutdown()
  scene.expect_eof(visitor)
end)

-- ---- one beside others ------------------------------------------------------

scene.each(T, "test_stalled_ones_stop_nobody", { pools = { 2 } }, function(s)
  local stalled = {}
  for i = 1, 3 do
    local sender, reader = s:join_from(i % 2 == 0 and "visitor" or "service")
    stalled[i] = { reader = reader, sent = scene.fill(sender, i) }
  end
  local visitor, served = s:join()
  h.exchange(visitor, served, 64 * MIB)
  for i, one in ipairs(stalled) do
    scene.take(one.reader, i, one.sent, 65536)
  end
end)

-- A stalled direction does not stop the other one of the same connection.
scene.each(T, "test_stalled_direction_stops_not_the_other",
  { pools = { 0 }, variants = scene.both_sides },
  function(s, who)
    local sender, reader = s:join_from(who)
    local sent = scene.fill(sender, 1)
    h.pump({
      { reader, send = 8 * MIB, send_seed = 2, fin = true },
      { sender, recv = 8 * MIB, recv_seed = 2, eof = true },
    })
    scene.take(reader, 1, sent, 65536)
  end)

return T
