-- SPDX-License-Identifier: MIT
--
-- The rows of bench/matrix.lua that need machines of their own. Where there is
-- a figure without the relay, its machine forwards packets, and visitors reach
-- the service itself.

local h = require("harness")
local machines = require("machines")
local summary = require("summary")
local sys = h.sys

local rows = {}

local function add(number, measure)
  table.insert(rows, { number = number, measure = measure })
end

local QUIET <const> = { "--log-level", "warn" }
local SERVICE <const> = "198.51.100.2"

-- Machines that use Reno, and a way past the relay.
local function open(options)
  local world = machines.open({ mode = "auto", relay = options or QUIET,
    expose = QUIET })
  for _, space in ipairs({ world.outside, world.middle, world.home }) do
    space:run("sysctl", "-q", "-w", "net.ipv4.tcp_congestion_control=reno",
      "net.ipv4.ip_forward=1")
  end
  world.outside:run("ip", "route", "add", "default", "via", "192.0.2.1")
  world.home:run("ip", "route", "add", "default", "via", "198.51.100.1")
  world.plain = world.home:call(sys.listen, { host = SERVICE })
  return world
end

local function join(world, direct)
  if not direct then
    return world:join()
  end
  local visitor = world.outside:call(h.connect, world.plain:port(),
    { host = SERVICE })
  return visitor, assert(world.plain:accept())
end

-- ---- 15, 16: an agent that vanishes -----------------------------------------

-- Agents' links are drawn at many points between two heartbeats; the longest
-- and the shortest time until it was noticed.
local function seconds_until_noticed(prepare)
  local COUNT <const> = 6
  local worlds = {}
  for i = 1, COUNT do
    worlds[i] = open({})
    worlds[i].began = sys.now()
    sys.sleep(0.6)
  end
  for _, world in ipairs(worlds) do
    prepare(world)
    world:cut()
    world.cut_at = sys.now()
  end
  local list = {}
  h.wait_until("all are noticed", function()
    for _, world in ipairs(worlds) do
      if not world.noticed and world.relay:log():find("agent gone") then
        world.noticed = true
        table.insert(list, sys.now() - world.cut_at)
      end
    end
    return #list == COUNT
  end, 60)
  table.sort(list)
  return list[1], list[COUNT]
end

local function add_noticed(number, what, prepare)
  add(number, function()
    local shortest, longest = seconds_until_noticed(prepare)
    return {
      { what .. ": soonest noticed", "s", relay = shortest },
      { what .. ": latest noticed", "s", relay = longest,
        target = "< 20 s" },
    }
  end)
end

add_noticed("15", "idle agent vanishes", function() end)

add_noticed("16", "agent vanishes, bytes unacknowledged", function(world)
  world.visitor, world.served = world:join()
  world.visitor:send(sys.pattern(1, 0, 1 << 20))
end)

-- ---- 18: losses -------------------------------------------------------------

-- On the visitors' link alone, as it is the only one that both have.
add("18", function()
  local BYTES <const>, ROUNDS <const> = 8 << 20, 5
  local world = open()
  world.outside:lose("front", 5)
  world.middle:lose("front", 5)
  local function goodput(direct)
    local visitor, served = join(world, direct)
    local result = h.pump({
      { served, send = BYTES, send_seed = 1, fin = true, eof = true },
      { visitor, recv = BYTES, recv_seed = 1, fin = true, eof = true } })
    visitor:close()
    served:close()
    return BYTES / result.seconds / 1e6
  end
  local through, direct = {}, {}
  for i = 1, ROUNDS do
    through[i], direct[i] = goodput(false), goodput(true)
  end
  return { { "goodput at 5 % loss, to the visitor: median", "MB/s",
    relay = summary.median(through), direct = summary.median(direct),
    target = "as direct" } }
end)

-- ---- 19: shares of a bottleneck ---------------------------------------------

-- Jain's index: 1 when all are the same, 1/n when one has all.
local function fairness(shares)
  local sum, squares = 0, 0
  for _, share in ipairs(shares) do
    sum = sum + share
    squares = squares + share * share
  end
  return sum * sum / (#shares * squares)
end

add("19", function()
  local STREAMS <const>, SECONDS <const>, ROUNDS <const> = 4, 8, 4
  local world = open()
  world.middle:narrow("front", "1mbit")
  local function shares(direct)
    local ends, readers = {}, {}
    for i = 1, STREAMS do
      local visitor, served = join(world, direct)
      table.insert(ends, { served, send = 1 << 30, send_seed = i })
      readers[i] = { visitor, recv = 1 << 30, recv_seed = i }
    end
    ends.timeout = SECONDS
    local result = sys.pump(table.move(readers, 1, STREAMS, STREAMS + 1, ends))
    local list = {}
    for i = 1, STREAMS do
      list[i] = result[STREAMS + i].received
      ends[i][1]:reset()
      readers[i][1]:reset()
    end
    return fairness(list)
  end
  local through, direct = {}, {}
  for i = 1, ROUNDS do
    through[i], direct[i] = shares(false), shares(true)
  end
  return { { "Jain's index of 4 streams at 1 Mbit/s: median", "",
    relay = summary.median(through), direct = summary.median(direct),
    target = "no less than direct" } }
end)

-- ---- 32: readers that stand still -------------------------------------------

add("32", function()
  local COUNT <const>, RCVBUF <const> = 500, 65536
  local world = open({ "--rcvbuf", RCVBUF, table.unpack(QUIET) })
  local rss, writers, visitors = world.relay:usage().rss, {}, {}
  for i = 1, COUNT do
    local visitor, served = world:join({ rcvbuf = RCVBUF })
    served:set({ sndbuf = RCVBUF })
    visitors[i] = visitor
    writers[i] = { served, send = 4 << 20, send_seed = i }
  end
  writers.timeout = 3
  sys.pump(writers)
  local _, all = world:relay_memory()
  local grown = world.relay:usage().rss - rss
  for i = 1, COUNT do
    visitors[i]:reset()
    writers[i][1]:reset()
  end
  return {
    { "500 stalled readers: kernel's memory of each", "KiB",
      relay = all / COUNT / 1024, target = "< 1152" },
    { "500 stalled readers: relay's own of each", "KiB",
      relay = grown / COUNT / 1024 },
  }
end)

return rows
