-- SPDX-License-Identifier: MIT
--
-- What a policy costs: connections per second with no script, with an empty
-- one, with visitor and close, and with limits as well, run by run in turn; the
-- time of a live pair's round trips while visitors wait in a hook, beside the
-- same visitors let in at once; and how many calls bytes make.
--
-- Visitors leave by a reset, which leaves no port behind.

local here = arg[0]:match("^(.*)/[^/]*$")
local build = os.getenv("RELAY_TEST_BUILD")
package.cpath = build .. "/tests/?.so;" .. package.cpath
package.path = here .. "/?.lua;" .. here .. "/../tests/lua/?.lua;" ..
  package.path

local h = require("harness")
local summary = require("summary")
local sys = h.sys

local QUICK <const> = arg[1] == "quick"
local ROUNDS <const> = QUICK and 6 or tonumber(arg[1] or 60)
local CONNECTIONS <const> = QUICK and 1000 or tonumber(arg[2] or 3000)
local TRIPS <const> = QUICK and 2000 or 5000
local AT_A_TIME <const> = 16
local WAITERS <const> = 100
local HOOKS <const> = 2 -- of each connection

-- Counts the connections of each address.
local COUNTING <const> = [[
  local open = {}
  return {
    visitor = function(conn)
      local addr = conn.addr
      if (open[addr] or 0) >= 1000 then return false, "too many" end
      %s
      open[addr] = (open[addr] or 0) + 1
    end,
    close = function(conn)
      local left = open[conn.addr] - 1
      open[conn.addr] = left > 0 and left or nil
    end,
  }]]

local POLICIES <const> = {
  { name = "no script" },
  { name = "empty policy", script = "return {}" },
  { name = "visitor + close", script = COUNTING:format("") },
  { name = "visitor + close + limits", script = COUNTING:format(
    "conn:limit { rate_in = 1 << 30, rate_out = 1 << 30, idle = 300 }") },
}

local function start(script, ...)
  local options = { "--listen", "127.0.0.1", "--log-level", "error", ... }
  if script then
    table.insert(options, "--script")
    table.insert(options, h.write_file(h.tmpdir() .. "/policy.lua", script))
  end
  local relay = h.start_relay(options)
  local agent = h.start_echoserver(relay, { "--log-level", "error" })
  return { relay = relay, agent = agent, speed = {}, cpu = {} }
end

-- ---- connections ------------------------------------------------------------

-- Microseconds that a process has run.
local function cpu_of(process)
  local file = assert(io.open(("/proc/%d/schedstat"):format(process:pid())))
  local ns = file:read("n")
  file:close()
  return ns / 1e3
end

local function finish(visitor)
  assert(visitor:recv_exact(1) == "x")
  visitor:reset()
  visitor:close()
end

-- So many connections, some at a time: each says a byte and has it back.
local function connect_all(port, count)
  local visitors = {}
  for i = 1, count do
    local slot = i % AT_A_TIME
    if visitors[slot] then
      finish(visitors[slot])
    end
    visitors[slot] = assert(sys.connect("127.0.0.1", port))
    visitors[slot]:send("x")
  end
  for _, visitor in pairs(visitors) do
    finish(visitor)
  end
end

local function measure(system)
  local cpu, began = cpu_of(system.relay), sys.now()
  connect_all(system.agent.port, CONNECTIONS)
  table.insert(system.speed, CONNECTIONS / (sys.now() - began))
  table.insert(system.cpu, (cpu_of(system.relay) - cpu) / CONNECTIONS)
end

local function percent(ratio)
  return ("%+.1f %%"):format((ratio - 1) * 100)
end

local function report_connections(systems)
  local bare = systems[1]
  print(("connections, %d rounds of %d, %d at a time"):format(
    ROUNDS, CONNECTIONS, AT_A_TIME))
  for i, system in ipairs(systems) do
    local speed, cpu = summary.median(system.speed), summary.median(system.cpu)
    local line = ("  %-25s %6.0f /s   %5.2f us of the relay's CPU each"):format(
      POLICIES[i].name, speed, cpu)
    if system ~= bare then
      local ratio, low, high = summary.ratio(system.speed, bare.speed)
      line = line .. ("\n    connections  %s  [%s, %s]"):format(
        percent(ratio), percent(low), percent(high))
      ratio, low, high = summary.ratio(system.cpu, bare.cpu)
      line = line .. ("\n    CPU          %s  [%s, %s]"):format(
        percent(ratio), percent(low), percent(high))
    end
    print(line)
  end
  local costs = {}
  for i, cpu in ipairs(systems[3].cpu) do
    costs[i] = (cpu - bare.cpu[i]) * 1e3 / HOOKS
  end
  print(("    a hook       %.0f ns  [%.0f, %.0f], limits aside"):format(
    summary.median(costs), summary.interval(costs)))
end

local function compare_connections()
  local systems = {}
  for i, policy in ipairs(POLICIES) do
    systems[i] = start(policy.script)
    connect_all(systems[i].agent.port, CONNECTIONS // 2)
  end
  for round = 1, ROUNDS do
    for i = 1, #systems do
      measure(systems[(round + i) % #systems + 1])
    end
  end
  report_connections(systems)
  for _, system in ipairs(systems) do
    system.agent:stop()
    system.relay:stop()
  end
end

-- ---- waiting ----------------------------------------------------------------

-- Round trips of a live pair, in microseconds, while visitors come, and wait
-- or not.
local function round_trips(port, live, host)
  local visitors, times = {}, {}
  for i = 1, WAITERS do
    visitors[i] = assert(sys.connect("127.0.0.1", port, { from = host }))
  end
  for i = 1, TRIPS do
    local began = sys.now()
    live:send("x")
    live:recv_exact(1)
    times[i] = (sys.now() - began) * 1e6
  end
  for _, visitor in ipairs(visitors) do
    visitor:reset()
    visitor:close()
  end
  return summary.percentile(times, 0.5), summary.percentile(times, 0.99)
end

local function compare_waiting()
  local system = start([[
    local relay = require "relay"
    return { visitor = function(conn)
      if conn.addr == "127.0.0.66" then relay.sleep(1) end
    end }]])
  local port = system.agent.port
  local live = assert(sys.connect("127.0.0.1", port))
  local middle, late = { {}, {} }, { {}, {} }
  for _ = 1, ROUNDS do
    for i, host in ipairs({ "127.0.0.65", "127.0.0.66" }) do
      local p50, p99 = round_trips(port, live, host)
      table.insert(middle[i], p50)
      table.insert(late[i], p99)
    end
  end
  live:close()
  print(("round trips of a live pair, %d rounds of %d"):format(ROUNDS, TRIPS))
  for i, what in ipairs({ "let in at once", "waiting in visitor" }) do
    print(("  %d visitors %-20s p50 %5.1f us   p99 %5.1f us"):format(WAITERS,
      what, summary.median(middle[i]), summary.median(late[i])))
  end
  local ratio, low, high = summary.ratio(late[2], late[1])
  print(("    p99          %s  [%s, %s]"):format(percent(ratio), percent(low),
    percent(high)))
end

-- ---- bytes ------------------------------------------------------------------

-- Every hook but `log` counts its calls; `stop` tells.
local function count_calls()
  local count = QUICK and 64 << 20 or 1 << 30
  local system = start([[
    local relay = require "relay"
    local calls = 0
    local function call() calls = calls + 1 end
    return { visitor = call, open = call, close = call, peek = call,
             allocate = call, agent_gone = call, log = call,
             stop = function()
               relay.log("error", "calls %d", calls)
             end }]])
  h.echo(system.agent, count)
  system.agent:stop()
  system.relay:stop()
  print(("%d bytes each way of one visitor: %s calls of hooks in all"):format(
    count, system.relay:log():match("calls (%d+)")))
end

compare_connections()
compare_waiting()
count_calls()
local problems = h.teardown()
if problems then
  print(problems)
  os.exit(1)
end
