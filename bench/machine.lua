-- SPDX-License-Identifier: MIT
--
-- What the numbers were made on.

local h = require("harness")

local machine = {}

local function first_line(path)
  local file = io.open(path)
  local line = file and file:read("l")
  if file then
    file:close()
  end
  return line
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
  local file = io.open("/etc/os-release")
  local text = file and file:read("a") or ""
  if file then
    file:close()
  end
  return text:match('PRETTY_NAME="([^"]*)"') or "?"
end

-- {NAME = TEXT}
function machine.facts()
  return {
    processor = processor(),
    cores = h.output_of({ "nproc" }):match("%d+"),
    memory = memory_gib(),
    kernel = (first_line("/proc/sys/kernel/osrelease") or "?")
      :match("^[%d.]+") or "?",
    system = distribution(),
    congestion = first_line("/proc/sys/net/ipv4/tcp_congestion_control") or
      "?",
    date = os.date("!%Y-%m-%d"),
  }
end

return machine
