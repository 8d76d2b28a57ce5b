-- SPDX-License-Identifier: MIT
--
-- What the numbers were made on, and how it is asked.

local h = require("harness")

local machine = {}

-- All of a file; nil: it cannot be read.
function machine.read(path)
  local file = io.open(path)
  local text = file and file:read("a")
  if file then
    file:close()
  end
  return text
end

local function first_line(path)
  return (machine.read(path) or ""):match("[^\n]+") or "?"
end

local function processor()
  for line in io.lines("/proc/cpuinfo") do
    local name = line:match("^model name%s*:%s*(.*)")
    if name then
      return name
    end
  end
  return "?"
end

local function memory_gib()
  local text = h.read_file("/proc/meminfo")
  return ("%.0f GiB"):format(tonumber(text:match("MemTotal:%s+(%d+)")) / 2^20)
end

local function distribution()
  local text = machine.read("/etc/os-release") or ""
  return text:match('PRETTY_NAME="([^"]*)"') or "?"
end

-- As bench/run has made it.
local function network()
  local own = os.getenv("RELAY_BENCH_INSIDE") and
    "in a network namespace of its own" or
    "in the namespace of everything else there"
  local congestion = first_line("/proc/sys/net/ipv4/tcp_congestion_control")
  return own .. ", with " .. congestion .. (congestion == "reno" and
    ": a congestion control that paces, as BBR does, measures its timers there"
    or "")
end

local function iperf3()
  return h.which("iperf3") and
    h.output_of({ "iperf3", "--version" }):match("iperf (%S+)") or "–"
end

-- {NAME = TEXT}
function machine.facts()
  return {
    processor = processor(),
    cores = h.output_of({ "nproc" }):match("%d+"),
    memory = memory_gib(),
    kernel = first_line("/proc/sys/kernel/osrelease"):match("^[%d.]+") or "?",
    system = distribution(),
    congestion = first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
    network = network(),
    iperf3 = iperf3(),
    date = os.date("!%Y-%m-%d"),
  }
end

return machine
