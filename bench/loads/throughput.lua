-- SPDX-License-Identifier: MIT
--
-- How fast bytes go, and what CPU the hops need for them: iperf3, one stream
-- and eight, in both directions. And the same of the relay with and without a
-- script, alone and more often: what is to be told apart there is small.

local cjson = require("cjson")
local field = require("field")
local h = require("harness")
local real = require("real")
local scaffold = require("scaffold")

local throughput = { name = "throughput" }

throughput.cases = {
  { name = "1 in", streams = 1 },
  { name = "1 out", streams = 1, reverse = true },
  { name = "8 in", streams = 8 },
  { name = "8 out", streams = 8, reverse = true },
}

local function run_iperf3(port, case, seconds)
  local command = { "iperf3", "-c", "127.0.0.1", "-p", tostring(port),
    "-t", tostring(seconds), "-P", tostring(case.streams), "-J",
    seconds = seconds + 10 }
  if case.reverse then
    table.insert(command, "-R")
  end
  local out = h.run(command)
  if out.timeout then
    error("iperf3 never ended", 0)
  end
  local ok, said = pcall(cjson.decode, out.stdout)
  return ok and said["end"] and said["end"].sum_received, ok and said.error
end

-- What the visitors or the service received, and in what time. The server may
-- still be busy with the test before.
local function transfer(port, case, seconds)
  local why
  for _ = 1, 4 do
    local sum
    sum, why = run_iperf3(port, case, seconds)
    if sum and sum.bytes > 0 then
      return sum
    end
    h.sys.sleep(0.5)
  end
  error(why or "iperf3 says nothing", 0)
end

local function measure(run, case)
  return function(place, record)
    local before, all = place.scaffold:cpu(), scaffold.machine_cpu()
    local sum = transfer(place.port, case, run.seconds)
    local gb = sum.bytes / 1e9
    record("speed", gb / sum.seconds)
    record("cpu", (place.scaffold:cpu() - before) / gb)
    record("machine", (scaffold.machine_cpu() - all) / gb)
  end
end

local function has_script_or_none(entry)
  return entry.name == "relay" or entry.name == "relay, script"
end

function throughput.run(run)
  local backend = real.free_port()
  local server = h.start({ "iperf3", "-s", "-B", "127.0.0.1", "-p",
    tostring(backend), stdout = "memory" })
  real.await_port(server, backend)
  local systems = field.open(run, throughput.name, { backend = backend })
  systems:rounds(run.warm, "warm", measure(run, throughput.cases[1]))
  for _, case in ipairs(throughput.cases) do
    systems:rounds(run.rounds.throughput, case.name, measure(run, case))
  end
  for _, case in ipairs(throughput.cases) do
    systems:rounds(run.rounds.script, case.name .. ", script",
      measure(run, case), has_script_or_none)
  end
  systems:close()
  server:kill("KILL")
end

return throughput
