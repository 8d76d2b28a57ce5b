-- SPDX-License-Identifier: MIT
--
-- The page: every number on it comes from the results, and so does every
-- sentence that depends on one.

local h = require("harness")
local plots = require("plots")
local systems = require("systems")
local tables = require("tables")
local targets = require("targets")
local verdicts = require("verdicts")

local page = {}

local CASES <const> = { "1 in", "1 out", "8 in", "8 out" }
local SHORT <const> = "16 at a time"

local INTRO <const> = [[
# Benchmarks

This page is written by `./dev bench`, from what it measured: run it, and it is
about your machine. `./dev bench quick` takes less than five minutes.

Each system stands in the same place, visitor → relay → agent → service, and
all of them run at once and take turns: in each round every system is measured
once, in an order drawn anew. A number is the median of its rounds; in brackets
is where the true median lies in 95 of 100 cases (with fewer than six rounds,
the least and the greatest). A ratio is the median of the ratios of each round,
so it need not be that of the medians.

- *Tunnels* (ssh -R, rathole, bore, frp, chisel) have an agent that dials out,
  as this relay has. *Proxies* (HAProxy, nginx, socat, stunnel) stand here
  twice in a row, and their second hop has to be reachable: no tunnel, but the
  measure of how fast a hop can be.
- `haproxy` has `splice-auto`, as most run it; `haproxy, forced` splices all
  there is, over pipes of 1 MiB. `relay, script` has a policy that counts and
  limits connections.
- Where what is best for bulk is not for small things, both are here: `bulk`
  leaves Nagle's algorithm on, `session` off (ssh with -N has it on), and
  `muxed` has one connection for all.
- ssh, chisel, stunnel and what has TLS in its name encrypt what is between the
  hops, with AES-128 where it can be told. This relay's ends prove a token to
  each other, the others' a certificate.
- `direct` is the service without any hop.
]]

-- NETWORK is what the facts say of it.
local HOW <const> = [[
- All of it is on one machine, on loopback, NETWORK.
  Visitors, hops and service share the cores, so what a hop saves in CPU shows
  in speed as well. It is not what a network between machines would show, where
  the wire is the limit for most of these.
- Throughput is iperf3's, what the receiver got in a second's run. CPU is user
  and system time of all hops, their threads and children, from `/proc`.
- Round trips, short connections and growth are made by `bench/load/`, which is
  C over epoll, before a service that sends back what it gets: one means for
  all, where sockperf has no short connections, and wrk only HTTP.
- The way between agent and relay is a process that holds bytes up for half a
  round trip, and the first ones of a connection until a handshake over that
  way would be done.
- Memory is proportional set size: a process's own, and its part of what is
  shared. What the kernel holds for sockets and pipes is in none of these
  numbers.
- Each system is set up as its own documents advise for speed, and where they
  say nothing, as it comes; what it was told is [below](#what-they-were-told).
]]

-- The systems of a load, in the order of systems.lua.
local function in_order(results, load)
  local there, names = {}, {}
  for _, name in ipairs(results:systems(load)) do
    there[name] = true
  end
  for _, entry in ipairs(systems.list) do
    if there[entry.name] then
      table.insert(names, entry.name)
    end
  end
  return names
end

-- ---- parts ------------------------------------------------------------------

local function add(lines, ...)
  for _, text in ipairs({ ... }) do
    table.insert(lines, text)
  end
end

local function add_table(lines, results, names, columns)
  for _, line in ipairs(tables.lines(results, names, columns)) do
    table.insert(lines, line)
  end
  table.insert(lines, "")
end

-- Those that have hops: what has none needs nothing for them.
local function with_hops(names)
  local list = {}
  for _, name in ipairs(names) do
    if systems[name].kind ~= "none" then
      table.insert(list, name)
    end
  end
  return list
end

-- A column for each case.
local function columns_of(load, metric, cases, scale, over)
  local list = {}
  for _, case in ipairs(cases) do
    table.insert(list, { tostring(case), load = load, case = case,
      metric = metric, scale = scale, over = over })
  end
  return list
end

local function facts(lines, results)
  local function fact(name)
    return results:fact(name) or "?"
  end
  add(lines, ("Measured on %s: %s, %s cores, %s of memory, %s, kernel %s, " ..
    "%s, iperf3 %s.")
    :format(fact("date"), fact("processor"), fact("cores"), fact("memory"),
    fact("system"), fact("kernel"), fact("congestion"), fact("iperf3")), "")
end

-- ---- sections ---------------------------------------------------------------

local function targets_section(lines, results)
  local answers = targets.answers(results)
  if #answers > 0 then
    verdicts.add(lines, answers)
  end
  return #answers > 0
end

-- What was found by hand stands in a file beside this one.
local function limits_section(lines)
  add(lines, h.read_file(h.source .. "bench/limits.md"))
end

local sections = {}

function sections.throughput(lines, results, names)
  add(lines, "## Throughput", "", "GB/s from the visitor (in) and to it " ..
    "(out), in one stream and in eight.", "",
    "![throughput](PLOTS/throughput.svg)", "")
  add_table(lines, results, names, columns_of("throughput", "speed", CASES))
  add(lines, "This relay's speed over each system's:", "")
  add_table(lines, results, names, columns_of("throughput", "speed", CASES,
    nil, "relay"))
  add(lines, "Milliseconds of CPU that all hops need for a GB:", "",
    "![CPU](PLOTS/cpu.svg)", "")
  add_table(lines, results, with_hops(names), columns_of("throughput", "cpu",
    CASES, 1e3))
  add(lines, "The same of the whole machine, both ends and the kernel's own " ..
    "included: some of a hop's sending is done by whoever acknowledges what " ..
    "went before, and counted there.", "")
  add_table(lines, results, names, columns_of("throughput", "machine", CASES,
    1e3))
end

function sections.trips(lines, results, names)
  add(lines, "## Round trips", "", "64 bytes there and back over one " ..
    "connection, one after the other, in microseconds; and this relay's " ..
    "p50 over each system's.", "", "![round trips](PLOTS/trips.svg)", "")
  add_table(lines, results, names, {
    { "p50", load = "trips", case = "64 bytes", metric = "p50" },
    { "p99", load = "trips", case = "64 bytes", metric = "p99" },
    { "relay's p50 over it", load = "trips", case = "64 bytes", metric = "p50",
      over = "relay" },
  })
end

-- Whether any visitor of a system in vain came.
local function any_lost(results)
  for _, share in ipairs(results:values("connections", SHORT, nil, "lost")) do
    if share > 0 then
      return true
    end
  end
  return false
end

function sections.connections(lines, results, names)
  local lost = any_lost(results)
  add(lines, "## Short connections", "", "Visitors that connect, say a " ..
    "byte, have it back and leave, " .. SHORT .. ": how many a second, the " ..
    "CPU of all hops for each, in microseconds, and this relay's number " ..
    "over each system's." .. (lost and "" or " None failed."), "",
    "![connections](PLOTS/connections.svg)", "")
  local columns = {
    { "a second", load = "connections", case = SHORT, metric = "speed" },
    { "CPU", load = "connections", case = SHORT, metric = "cpu", scale = 1e6 },
    { "relay's over it", load = "connections", case = SHORT, metric = "speed",
      over = "relay" },
  }
  if lost then
    table.insert(columns, { "failed, %", load = "connections", case = SHORT,
      metric = "lost", scale = 100 })
  end
  add_table(lines, results, names, columns)
end

-- Milliseconds as they rise; a failure to start may have come first.
local function first_byte_cases(results)
  local list = results:cases("first byte")
  table.sort(list, function(a, b)
    return (tonumber(a) or 0) < (tonumber(b) or 0)
  end)
  return list
end

sections["first byte"] = function(lines, results, names)
  add(lines, "## The first byte", "", "From connecting to having a byte " ..
    "back, in milliseconds, with a round trip of so many milliseconds " ..
    "between agent and relay.", "", "![first byte](PLOTS/first-byte.svg)", "")
  add_table(lines, results, names, columns_of("first byte", "ms",
    first_byte_cases(results)))
end

-- Counts of pairs, from `least` on: the memory of a few is lost in what
-- programs take and give back anyhow.
local function counts(results, least)
  local list = {}
  for _, case in ipairs(results:cases("pairs")) do
    local count = math.tointeger(tonumber(case))
    if count and count >= least then
      table.insert(list, count)
    end
  end
  table.sort(list)
  return list
end

function sections.pairs(lines, results, names)
  local cases, many = counts(results, 1), counts(results, 100)
  local hops = with_hops(names)
  add(lines, "## With many pairs", "", "KiB of memory for each idle pair, " ..
    "of all hops together:", "", "![memory](PLOTS/pairs-memory.svg)", "")
  add_table(lines, results, hops, columns_of("pairs", "memory", many,
    1 / 1024))
  add(lines, "Of the relay's side alone:", "")
  add_table(lines, results, hops, columns_of("pairs", "relay memory",
    many, 1 / 1024))
  add(lines, "Round trips of one pair while all others are idle, p50 " ..
    "in microseconds:", "", "![one of many](PLOTS/pairs-alone.svg)", "")
  add_table(lines, results, names, columns_of("pairs", "p50", cases))
  add(lines, "Round trips a second of all of them at once, 4 KiB each:", "",
    "![all of them](PLOTS/pairs-all.svg)", "")
  add_table(lines, results, names, columns_of("pairs", "trips", cases))
end

local ROWS <const> = {
  { "1", "after the visitor's FIN the service goes on, 1 MiB" },
  { "2", "after the service's FIN the visitor goes on, 1 MiB" },
  { "3", "a FIN comes after bytes that had to wait" },
  { "4", "a visitor's reset is a reset at the service" },
  { "5", "a service's reset is a reset at the visitor" },
  { "6", "100 kB that were acknowledged come before the visitor's reset" },
  { "6b", "and before the service's" },
}

local function exactness_cell(results, case, system)
  return results:word("exactness", case, system, "holds") or
    #results:values("exactness", case, system, "holds") > 0 and "yes" or "–"
end

function sections.exactness(lines, results, names)
  add(lines, "## What speed was bought with", "", "Whether a connection " ..
    "ends as a direct one does, in each round; where it does not, how:", "")
  for _, row in ipairs(ROWS) do
    add(lines, ("- **%s**: %s"):format(row[1], row[2]))
  end
  local head, rule = { "system" }, { "---" }
  for _, row in ipairs(ROWS) do
    table.insert(head, row[1])
    table.insert(rule, "---")
  end
  add(lines, "", "| " .. table.concat(head, " | ") .. " |",
    "|" .. table.concat(rule, "|") .. "|")
  for _, name in ipairs(names) do
    local cells = { name }
    for _, row in ipairs(ROWS) do
      table.insert(cells, exactness_cell(results, row[1], name))
    end
    add(lines, "| " .. table.concat(cells, " | ") .. " |")
  end
  add(lines, "")
end

local ORDER <const> = { "throughput", "trips", "connections", "first byte",
                        "pairs", "exactness" }

local PLOTS <const> = {
  { file = "throughput", title = "throughput, GB/s (more is better)",
    load = "throughput", metric = "speed", cases = CASES },
  { file = "cpu", title = "CPU of all hops, ms a GB (less is better)",
    load = "throughput", metric = "cpu", cases = CASES, scale = 1e3,
    hops = true },
  { file = "trips", load = "trips", metric = "p50", cases = { "64 bytes" },
    title = "round trip of 64 bytes, p50, microseconds (less is better)" },
  { file = "connections", load = "connections", metric = "speed",
    cases = { SHORT },
    title = "short connections a second (more is better)" },
  { file = "first-byte", title = "the first byte, ms (less is better)",
    load = "first byte", metric = "ms", cases = { "0", "20", "100" },
    word = "%s ms apart", hops = true },
  { file = "pairs-memory", load = "pairs", metric = "memory",
    title = "memory of all hops for an idle pair, KiB (less is better)",
    scale = 1 / 1024, over = "pairs", least = 100, hops = true },
  { file = "pairs-alone", load = "pairs", metric = "p50",
    title = "round trip of one pair, p50, microseconds (less is better)",
    over = "pairs, all others idle", least = 1 },
  { file = "pairs-all", load = "pairs", metric = "trips",
    title = "round trips a second of all pairs (more is better)",
    over = "pairs", least = 1 },
}

local function versions(lines, results)
  add(lines, "## What they were told", "")
  for _, entry in ipairs(systems.list) do
    local recipe = results:fact("recipe of " .. entry.name)
    local version = results:fact("version of " .. entry.name)
    if recipe and recipe ~= "" then
      add(lines, ("<details><summary>%s %s</summary>"):format(entry.name,
        version), "", "```",
        (recipe:gsub("\\(.)", { n = "\n", ["\\"] = "\\" })), "```",
        "</details>", "")
    end
  end
end

-- ---- the whole --------------------------------------------------------------

-- The text of the page; its plots are in the directory `pictures`.
function page.text(results, pictures)
  local lines = { INTRO }
  facts(lines, results)
  local answered = targets_section(lines, results)
  for _, load in ipairs(ORDER) do
    local names = in_order(results, load)
    if #names > 0 then
      sections[load](lines, results, names)
    end
  end
  if answered then
    limits_section(lines)
  end
  add(lines, "## How it was measured", "",
    (HOW:gsub("NETWORK", results:fact("network") or "?")))
  add(lines, "To repeat it: `bench/peers`, which builds the tunnels with " ..
    "cargo and go, then `./dev bench`.", "")
  versions(lines, results)
  return (table.concat(lines, "\n"):gsub("PLOTS", pictures)
    :gsub("\n\n\n+", "\n\n"):gsub("%s+$", "\n"))
end

-- What fits into a picture of lines: no variants with a script or TLS.
local function plain_of(names)
  local list = {}
  for _, name in ipairs(names) do
    if systems[name].kind ~= "none" and not name:find(", [Ts]c?[rL]") then
      table.insert(list, name)
    end
  end
  return list
end

-- Writes DIRECTORY/NAME.md and its plots in DIRECTORY/NAME/.
function page.write(results, directory, name)
  local pictures = directory .. "/" .. name
  h.output_of({ "mkdir", "-p", pictures })
  for _, plot in ipairs(PLOTS) do
    local names = in_order(results, plot.load)
    names = plot.hops and with_hops(names) or names
    names = plot.over and plain_of(names) or names
    if #names > 0 then
      plot.cases = plot.cases or counts(results, plot.least)
      plots.draw(results, plot, names, pictures .. "/" .. plot.file .. ".svg")
    end
  end
  h.write_file(directory .. "/" .. name .. ".md", page.text(results, name))
  print("written: " .. directory .. "/" .. name .. ".md")
end

-- A load's tables, for whoever watches.
function page.print(results, load)
  local lines = {}
  sections[load](lines, results, in_order(results, load))
  for _, line in ipairs(lines) do
    if line:find("^|") or line:find(":$") then
      print(line)
    end
  end
end

return page
