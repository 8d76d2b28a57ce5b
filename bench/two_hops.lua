-- SPDX-License-Identifier: MIT
--
-- Throughput and CPU of two hops, by iperf3: this relay with expose, HAProxy
-- twice as most run it (splice-auto), and HAProxy twice with splicing forced
-- and large pipes. Interleaved round by round; medians, and ratios of medians.

local here = arg[0]:match("^(.*)/[^/]*$")
local build = os.getenv("RELAY_TEST_BUILD")
package.cpath = build .. "/tests/?.so;" .. package.cpath
package.path = here .. "/../tests/lua/?.lua;" .. package.path

local cjson = require("cjson")
local h = require("harness")

local ROUNDS <const> = tonumber(arg[1] or 3)
local SECONDS <const> = tonumber(arg[2] or 3)

local PROXY <const> = [[
global
  nbthread 1
  %s
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
  %s
listen hop
  bind 127.0.0.1:%d
  server next 127.0.0.1:%d
]]

-- A port that is free now, as far as anybody can tell.
local function free_port()
  local listener = h.sys.listen()
  local port = listener:port()
  listener:close()
  return port
end

local function start_proxies(global, defaults, backend)
  local port, middle = free_port(), free_port()
  local processes = {}
  for _, hop in ipairs({ { port, middle }, { middle, backend } }) do
    local path = h.write_file(h.tmpdir() .. "/haproxy.cfg",
      PROXY:format(global, defaults, hop[1], hop[2]))
    table.insert(processes, h.start({ "haproxy", "-db", "-f", path,
      stdout = "memory" }))
  end
  return { port = port, processes = processes }
end

local function start_relay(backend)
  local relay = h.start_relay({ "--listen", "127.0.0.1", "--log-level",
    "error" })
  local agent = h.start_expose(relay, backend, { "--log-level", "error" })
  return { port = agent.port, processes = { relay, agent } }
end

local function cpu_of(system)
  local seconds = 0
  for _, process in ipairs(system.processes) do
    seconds = seconds + process:usage().cpu
  end
  return seconds
end

-- GB/s through the system, and CPU milliseconds of its hops for each GB.
local function measure(system, streams, reverse)
  local before = cpu_of(system)
  local command = { "iperf3", "-c", "127.0.0.1", "-p", tostring(system.port),
    "-t", tostring(SECONDS), "-P", tostring(streams), "-J",
    seconds = SECONDS + 20 }
  if reverse then
    table.insert(command, "-R")
  end
  local out = h.run(command)
  local sum = cjson.decode(out.stdout)["end"].sum_received
  if not sum then -- the server was still busy with the one before
    h.sys.sleep(1)
    return measure(system, streams, reverse)
  end
  return { speed = sum.bytes / sum.seconds / 1e9,
    cpu = (cpu_of(system) - before) * 1e3 / (sum.bytes / 1e9) }
end

local function median(list, key)
  local values = {}
  for _, entry in ipairs(list) do
    table.insert(values, entry[key])
  end
  table.sort(values)
  local middle = #values // 2
  return #values % 2 == 1 and values[middle + 1] or
    (values[middle] + values[middle + 1]) / 2
end

local function report(title, order, results)
  print(title)
  local ours = results[order[1]]
  for _, name in ipairs(order) do
    local speed, cpu = median(results[name], "speed"),
      median(results[name], "cpu")
    print(("  %-15s %6.2f GB/s %5.0f ms/GB   ours: %.2f x speed, %.2f x CPU")
      :format(name, speed, cpu, median(ours, "speed") / speed,
        median(ours, "cpu") / cpu))
  end
end

local backend = free_port()
h.start({ "iperf3", "-s", "-B", "127.0.0.1", "-p", tostring(backend),
  stdout = "memory" })
local order = { "relay", "haproxy auto", "haproxy forced" }
local systems = {
  ["relay"] = start_relay(backend),
  ["haproxy auto"] = start_proxies("", "option splice-auto", backend),
  ["haproxy forced"] = start_proxies(
    "tune.bufsize 65536\n  tune.pipesize 1048576",
    "option splice-request\n  option splice-response", backend),
}
h.sys.sleep(1)

for _, load in ipairs({ { 1, false }, { 1, true }, { 8, false },
    { 8, true } }) do
  local results = {}
  for _ = 1, ROUNDS do
    for _, name in ipairs(order) do
      results[name] = results[name] or {}
      table.insert(results[name], measure(systems[name], load[1], load[2]))
    end
  end
  report(("%d stream%s, %s"):format(load[1], load[1] > 1 and "s" or "",
    load[2] and "to the visitor" or "from the visitor"), order, results)
end
local problems = h.teardown()
if problems then
  print(problems)
  os.exit(1)
end
