-- SPDX-License-Identifier: MIT
--
-- The rows of bench/matrix.lua that loopback is enough for.

local h = require("harness")
local policy = require("policy")
local scene = require("scene")
local summary = require("summary")
local typed = require("typed")
local sys = h.sys

local rows = {}

local function add(number, measure)
  table.insert(rows, { number = number, measure = measure })
end

local QUIET <const> = { "--log-level", "error" }

-- A relay with `expose`, whose sockets both are the caller's.
local function open()
  return scene.open({ pool = 4, relay = QUIET, expose = QUIET })
end

-- The two ends of a connection without a relay.
local function join_directly(listener)
  local visitor = assert(sys.connect("127.0.0.1", listener:port()))
  return visitor, assert(listener:accept())
end

-- ---- 4: a reset -------------------------------------------------------------

add("4", function()
  local s = open()
  local function reset_times(join)
    local list = {}
    for i = 1, 300 do
      local first, last = join()
      first:send("x")
      last:recv()
      local began = sys.now()
      first:reset()
      assert(select(2, last:recv()) == "reset")
      list[i] = (sys.now() - began) * 1e3
      last:close()
    end
    return list
  end
  local through = reset_times(function() return h.join(s.agent, s.listener) end)
  local direct = reset_times(function() return join_directly(s.listener) end)
  return {
    { "reset, till the other side sees it: median", "ms",
      relay = summary.median(through), direct = summary.median(direct) },
    { "reset, till the other side sees it: p99", "ms",
      relay = summary.percentile(through, 0.99),
      direct = summary.percentile(direct, 0.99), target = "< 100 ms" },
  }
end)

-- ---- 14: one that is stalled ------------------------------------------------

add("14", function()
  local BYTES <const>, ROUNDS <const> = 256 << 20, 9
  local s = open()
  local function speed(join)
    local visitor, served = join()
    local result = h.pump({
      { served, send = BYTES, send_seed = 1, fin = true, eof = true },
      { visitor, recv = BYTES, recv_seed = 1, eof = true, fin = true } })
    visitor:close()
    served:close()
    return BYTES / result.seconds
  end
  -- What the fast one has of its speed when another is stalled.
  local function share(join)
    local alone, beside = {}, {}
    speed(join)
    for i = 1, ROUNDS do
      alone[i] = speed(join)
      local visitor, served = join()
      scene.fill(served, 1)
      beside[i] = speed(join)
      visitor:reset()
      served:reset()
    end
    return (summary.ratio(beside, alone))
  end
  local function loss(join)
    return 100 * (1 - share(join))
  end
  local relay = loss(function() return h.join(s.agent, s.listener) end)
  local direct = loss(function() return join_directly(s.listener) end)
  return { { ("a stalled one beside: loss (direct: %.1f)"):format(direct), "%",
    relay = relay, target = "< 5 %" } }
end)

-- ---- 20: slow handshakes ----------------------------------------------------

add("20", function()
  local COUNT <const> = 1000
  local relay = h.start_relay(QUIET)
  local slow, began = {}, sys.now()
  for i = 1, COUNT do
    slow[i] = assert(sys.connect("127.0.0.1", relay.port))
  end
  local cpu = relay:usage().cpu
  local line = "RELAY/1 LISTEN name=" .. ("a"):rep(900)
  for i = 1, 1000 do
    for _, socket in ipairs(slow) do
      socket:try_send(line:sub(i, i))
    end
    if #sys.poll(slow, "r", 0) == COUNT then
      break
    end
    sys.sleep(0.2)
  end
  local took = sys.now() - began
  cpu = relay:usage().cpu - cpu
  for _, socket in ipairs(slow) do
    socket:close()
  end
  return {
    { "1000 slow handshakes: the last one is cut after", "s", relay = took,
      target = "5 s" },
    { "1000 slow handshakes, 5 bytes/s each: CPU of it", "%",
      relay = 100 * cpu / took, target = "no spinning" },
  }
end)

-- ---- 30: a flood ------------------------------------------------------------

-- Round trips of a live pair in microseconds.
local function round_trips(live, seconds)
  local list, deadline = {}, sys.now() + seconds
  repeat
    local began = sys.now()
    live:send("x")
    live:recv_exact(1)
    table.insert(list, (sys.now() - began) * 1e6)
  until sys.now() > deadline
  return list
end

local function script(name)
  return h.source .. "bench/" .. name
end

local FLOOD <const> = 2000 -- connects a second

-- The p99 of a live pair's at a port: at rest, and under floods of the ports
-- that each list has. Like one from another machine a flood takes no CPU that
-- anybody else wants, unless it is a greedy one.
local function under_floods(port, greedy, ...)
  local live = assert(sys.connect("127.0.0.1", port))
  local late = { summary.percentile(round_trips(live, 2), 0.99) }
  for _, ports in ipairs({ ... }) do
    local flood = h.start({ "chrt", greedy and "--other" or "--idle", "0",
      "lua5.4", script("flood.lua"), FLOOD, table.unpack(ports) })
    flood:wait_line("flooding")
    table.insert(late, summary.percentile(round_trips(live, 4), 0.99))
    flood:kill("KILL")
    local _, seconds = flood:text("stdout"):gsub("\n%d+", "")
    if seconds < 3 then
      error("the flood was less than it was to be", 0)
    end
  end
  live:close()
  return table.unpack(late)
end

add("30", function()
  local relay = h.start_relay(QUIET)
  local agent = h.start_echoserver(relay, QUIET)
  local plain = h.start({ "lua5.4", script("plain.lua"), 2 })
  local one, other = plain:wait_line("^(%d+) (%d+)$")
  local at, past = { agent.port, relay.port }, { one, other }
  local quiet, loud = under_floods(agent.port, false, at)
  local _, greedy, elsewhere = under_floods(agent.port, true, at, past)
  local direct_quiet, direct_loud = under_floods(math.tointeger(one), false,
    past)
  plain:kill("KILL")
  return {
    { "a live pair's round trip: p99", "us", relay = quiet,
      direct = direct_quiet },
    { "the same under 2000 connects/s: p99", "us", relay = loud,
      direct = direct_loud, target = "< 2 x at rest" },
    { "the same, and they want the CPU as well: p99", "us", relay = greedy },
    { "the same, and they go past the relay: p99", "us", relay = elsewhere },
  }
end)

-- ---- 31: a port that is free again ------------------------------------------

add("31", function()
  local probe = sys.listen({ host = "::" })
  local port = probe:port()
  probe:close()
  local relay = h.start_relay({ "--ports", port .. "-" .. port,
    table.unpack(QUIET) })
  local again = {}
  for i = 1, 50 do
    local agent = typed.agent(relay)
    local visitor, data = agent:join()
    data:shutdown() -- the relay's side waits out the end
    visitor:recv_all()
    visitor:shutdown()
    data:recv_all()
    local began = sys.now()
    agent:bye()
    repeat
      agent = typed.agent(relay, { either = true })
    until agent.ok
    again[i] = (sys.now() - began) * 1e3
    agent:bye()
  end
  typed.close_all()
  return { { "a freed port, till it has an agent again: p99", "ms",
    relay = summary.percentile(again, 0.99), target = "< 1000 ms" } }
end)

-- ---- 40: a hook that loops --------------------------------------------------

add("40", function()
  local relay, agent = policy.scene([[return { visitor = function(conn)
    if conn.addr == "127.0.0.66" then while true do end end
  end }]], { table.unpack(QUIET) })
  local live = assert(sys.connect("127.0.0.1", agent.port))
  local quiet = round_trips(live, 1)
  local worst = {}
  for i = 1, 50 do
    local visitor = sys.connect("127.0.0.1", agent.port,
      { from = "127.0.0.66" })
    worst[i] = summary.percentile(round_trips(live, 0.05), 1)
    if visitor then
      visitor:close()
    end
  end
  live:close()
  assert(relay:running())
  return {
    { "a live pair's longest round trip, at rest", "ms",
      relay = summary.percentile(quiet, 1) / 1e3 },
    { "the same while hooks loop, 50 of them: longest", "ms",
      relay = summary.percentile(worst, 1) / 1e3, target = "< 50 ms" },
  }
end)

return rows
