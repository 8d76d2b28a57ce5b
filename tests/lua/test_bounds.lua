-- SPDX-License-Identifier: MIT
--
-- What slow ones cost the relay: behind a bottleneck, and when they stand
-- still. In the kernel that is --rcvbuf and the bound on unsent bytes. Nothing
-- is lost when they go on.
--
-- With RELAY_TEST_FULL=1 there are 500 readers that stand still, else 50:
--   RELAY_TEST_FULL=1 ./dev test bounds

local lu = require("luaunit")
local h = require("harness")
local machines = require("machines")
local sys = h.sys

local T = { limit = 90 }

local full = os.getenv("RELAY_TEST_FULL") == "1"

local MIB <const> = 1 << 20
-- --rcvbuf, and the buffers of peers; what the relay may leave unsent in a
-- socket, and have of its own for a connection.
local RCVBUF <const> = 65536
local UNSENT_MAX <const> = 512 * 1024
local OWN_MAX <const> = 128 * 1024
local STALLED <const> = full and 500 or 50

-- What the relay has of its own for `count` connections, each of which waits
-- for a slow one: in the kernel what --rcvbuf and the bound on unsent bytes
-- leave, with the kernel's own overhead; in the process a buffer, or with TLS
-- what a record takes.
local function expect_little(world, count, rss)
  local most = world:relay_memory()
  lu.assertTrue(most.unsent <= UNSENT_MAX, most.unsent .. " bytes unsent")
  lu.assertTrue(most.received <= 3 * RCVBUF, most.received .. " received")
  lu.assertTrue(most.queued <= 2 * (UNSENT_MAX + RCVBUF), most.queued ..
    " queued")
  if not h.sanitized then
    local grown = world.relay:usage().rss - rss
    lu.assertTrue(grown <= MIB + count * OWN_MAX, grown .. " bytes of its own")
  end
end

-- Goes on with a pump that was cut short.
local function resume(ends, so_far)
  for i, one in ipairs(ends) do
    one.send_from, one.recv_from = so_far[i].sent, so_far[i].received
  end
end

-- ---- a bottleneck -----------------------------------------------------------

h.each_mode(T, "test_a_bottleneck_of_1_mbit", function(mode)
  local world = machines.open({ mode = mode, relay = { "--rcvbuf", RCVBUF } })
  local rss = world.relay:usage().rss
  local ends = world:streams(4, 8 * MIB)
  local so_far
  -- At first there is room, and TCP gets to know it.
  for _, rate in ipairs({ "1gbit", "1mbit" }) do
    world.middle:narrow("front", rate)
    world.middle:narrow("back", rate)
    ends.timeout = rate == "1gbit" and 0.3 or 2
    so_far = sys.pump(ends)
    lu.assertEquals(so_far.failure, "timeout")
    resume(ends, so_far)
  end
  expect_little(world, 8, rss)
  world.middle:widen("front")
  world.middle:widen("back")
  ends.timeout = 60
  h.pump(ends)
end)

-- ---- readers that stand still -----------------------------------------------

-- Pumps until nothing moves any more.
local function pump_until_stuck(ends)
  local before, so_far = -1, { sent = 0 }
  while so_far.sent > before do
    before = so_far.sent
    ends.timeout = 0.5
    so_far = sys.pump(ends)
    lu.assertEquals(so_far.failure, "timeout")
    resume(ends, so_far)
  end
  ends.timeout = 60
end

h.each_mode(T, "test_readers_that_stand_still", function(mode)
  local world = machines.open({ mode = mode,
    relay = { "--rcvbuf", RCVBUF, "--log-level", "warn" },
    expose = { "--log-level", "warn" },
    listen = { sndbuf = RCVBUF, rcvbuf = RCVBUF } })
  local rss, writers, readers = world.relay:usage().rss, {}, {}
  for i = 1, STALLED do
    local visitor, served = world:join({ rcvbuf = RCVBUF })
    writers[i] = { served, send = 2 * MIB, send_seed = i, fin = true }
    readers[i] = { visitor, recv = 2 * MIB, recv_seed = i, eof = true }
  end
  pump_until_stuck(writers)
  expect_little(world, STALLED, rss)
  h.pump(table.move(readers, 1, STALLED, STALLED + 1, writers))
end)

return T
