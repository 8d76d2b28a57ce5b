-- SPDX-License-Identifier: MIT
--
-- That the measurements run, and sum up right. Not what they find.

local lu = require("luaunit")
local h = require("harness")

local summary = dofile(h.source .. "bench/summary.lua")

local T = { limit = 60 }

local function list(count)
  local values = {}
  for i = 1, count do
    values[i] = (i * 7) % count + 1 -- in some order
  end
  return values
end

function T.test_summary()
  lu.assertEquals(summary.median({ 5, 1, 3 }), 3)
  lu.assertEquals(summary.median({ 4, 1, 3, 2 }), 2.5)
  lu.assertEquals(summary.percentile(list(100), 0.99), 99)
  lu.assertEquals(summary.percentile({ 7 }, 0.99), 7)
  -- As tables of the sign test have it.
  lu.assertEquals({ summary.interval(list(20)) }, { 6, 15 })
  lu.assertEquals({ summary.interval(list(40)) }, { 14, 27 })
  lu.assertEquals({ summary.interval({ 1, 2, 3 }) }, { 1, 3 })
  lu.assertEquals({ summary.ratio({ 2, 4, 9 }, { 1, 2, 3 }) }, { 2, 2, 3 })
end

function T.test_usage()
  local result = h.run({ h.source .. "bench/run", "wrong" })
  lu.assertEquals(result.status, 2)
  lu.assertStrContains(result.stderr, "bench/run hooks [quick |")
end

function T.test_refusals()
  if h.sanitized then
    h.skip("it measures a release build")
  end
  local out = h.output_of({ h.source .. "bench/run", "refusals", "20" })
  local _, count = out:gsub("\n  [%l, ]+ +[%d.]+ us +[%d.]+ us +[-+]", "")
  lu.assertEquals(count, 15, out)
end

function T.test_hooks()
  if h.sanitized then
    h.skip("it measures a release build")
  end
  local out = h.output_of({ h.source .. "bench/run", "hooks", "2", "50" })
  for _, name in ipairs({ "no script", "empty policy", "visitor %+ close",
                          "visitor %+ close %+ limits" }) do
    lu.assertStrMatches(out, ".*\n  " .. name .. " +%d+ /s .*")
  end
  lu.assertStrMatches(out, ".*visitors waiting in visitor +p50 .*")
  -- allocate, visitor, open, close, agent_gone
  lu.assertStrContains(out, "of one visitor: 5 calls of hooks in all\n")
end

function T.test_matrix()
  if h.sanitized then
    h.skip("it measures a release build")
  end
  local out = h.output_of({ h.source .. "bench/run", "matrix", "4", "31" })
  lu.assertStrMatches(out, "row .*" ..
    "\n  4  reset, [^\n]*: p99 +[%d.]+ +[%d.]+ ms +[%d.]+  < 100 ms" ..
    "\n 31  a freed port, [^\n]* +[%d.]+ +%- ms .*")
end

-- ---- this relay beside others -----------------------------------------------

local function bench(name)
  package.path = h.source .. "bench/?.lua;" .. package.path
  return require(name)
end

-- Three rounds of two loads, in which the numbers are easy to reckon with.
local function canned()
  local kept = bench("results").new()
  local speeds = {
    ["relay"] = { 4, 5, 6 }, ["relay, script"] = { 4, 5, 5 },
    ["haproxy"] = { 2, 2, 2 }, ["haproxy, forced"] = { 5, 5, 5 },
    ["rathole"] = { 1, 1, 1 }, ["frp"] = { 2, 2.5, 3.5 },
    ["direct"] = { 9, 9, 9 },
  }
  for name, rounds in pairs(speeds) do
    for round, speed in ipairs(rounds) do
      kept:add("throughput", "1 in", name, round, "speed", speed)
      kept:add("throughput", "1 in", name, round, "cpu", 1 / speed)
      kept:add("throughput", "1 in, script", name, round, "speed", speed)
    end
  end
  kept:add("throughput", "1 in", "bore", 1, "failed", "iperf3\tsaid\nno")
  kept:add("throughput", "", "chisel", 0, "failed", "it never listened")
  kept:add("exactness", "4", "relay", 1, "holds", 1)
  kept:add("exactness", "4", "frp", 1, "holds", "a FIN instead of a reset")
  kept:tell("recipe of frp", "frps -c \\\\n DIR\\nlog.level = \"error\"")
  kept:tell("version of frp", "0.70.0")
  return kept
end

function T.test_results_are_kept()
  local path = h.tmpdir() .. "/results"
  local kept = canned()
  kept:keep(path)
  kept:add("throughput", "1 in", "relay", 4, "speed", 0.1)
  kept.file:close()
  local again = bench("results").load(path)
  lu.assertEquals(again:rounds("throughput", "1 in", "relay", "speed"),
    { 4, 5, 6, 0.1 })
  lu.assertEquals(again:word("throughput", "1 in", "bore", "failed"),
    "iperf3 said no")
  lu.assertEquals(again:fact("version of frp"), "0.70.0")
  lu.assertEquals(again:last_round("throughput", "1 in"), 4)
  local over, under = again:pairs_of("throughput", "1 in", "speed", "relay",
    "frp") -- the fourth round is one system's only
  lu.assertEquals({ over, under }, { { 4, 5, 6 }, { 2, 2.5, 3.5 } })
  again:drop("throughput")
  lu.assertEquals(again:loads(), { "exactness" })
  h.write_file(path, "no results\n")
  lu.assertErrorMsgContains("not a line of results", bench("results").load,
    path)
end

-- The answer about a case of the throughput, to some system.
local function answer_to(what, theirs, kept)
  for _, answer in ipairs(bench("targets").answers(kept)) do
    if answer.what == what and answer.theirs == theirs then
      return answer
    end
  end
end

function T.test_targets()
  local kept = canned()
  local best = answer_to("throughput", "frp", kept) -- not rathole
  lu.assertEquals({ best.ratio, best.low, best.high, best.met },
    { 2, 6 / 3.5, 2, true })
  lu.assertNil(answer_to("throughput", "rathole", kept))
  lu.assertTrue(answer_to("throughput", "haproxy", kept).met)
  local forced = answer_to("throughput", "haproxy, forced", kept)
  lu.assertEquals({ forced.ratio, forced.at_least, forced.met },
    { 1, 1.1, false })
  lu.assertEquals(answer_to("CPU a GB", "haproxy, forced", kept).met, false)
  local script = answer_to("throughput", "relay", kept)
  lu.assertEquals({ script.ratio, script.low, script.met }, { 1, 5 / 6, true })
  lu.assertNil(answer_to("round trip, p50", "frp", kept)) -- not measured
end

function T.test_page()
  local text = bench("page").text(canned(), "pictures")
  for _, line in ipairs({
    "| relay | 5.00 [4.00, 6.00] | – | – | – |",
    "| bore | iperf3 said no | – | – | – |",
    "| frp | 2.00 [1.71, 2.00] | – | – | – |", -- this relay's over it
    "| relay | 200 [167, 250] | – | – | – |",
    "| chisel | it never listened | it never listened | ",
    "| relay | throughput | haproxy, forced | ≥ 1.10 | " ..
      "missed by 9 %?: 1.00 [0.80, 1.20] | – | – | – |",
    "| relay | throughput | the best tunnel: frp | ≥ 2.00 | " ..
      "met?: 2.00 [1.71, 2.00] | – | – | – |",
    "| relay, script | throughput | the same without | ≥ 0.97 | met?: ",
    "## Where the limits are",
    "| relay | – | – | – | yes | – | – | – |",
    "| frp | – | – | – | a FIN instead of a reset | – | – | – |",
    "![throughput](pictures/throughput.svg)",
    "<summary>frp 0.70.0</summary>\n\n```\n" ..
      "frps -c \\n DIR\nlog.level = \"error\"\n```",
  }) do
    lu.assertStrContains(text, line)
  end
  lu.assertNotStrContains(text, "## Round trips") -- not measured
  lu.assertStrContains(text, "| direct | 9.00 [9.00, 9.00] |")
  lu.assertNotStrContains(text, "| direct | 111 ") -- it has no hops
end

function T.test_plots()
  local plots = bench("plots")
  local plot = { title = "GB/s", load = "throughput", metric = "speed",
    cases = { "1 in" } }
  local script = plots.script(canned(), plot, { "relay", "bore" }, "x.svg")
  lu.assertStrContains(script, '"relay" 5\n"bore" NaN\n')
  h.need("gnuplot")
  local path = h.tmpdir() .. "/x.svg"
  lu.assertTrue(plots.draw(canned(), plot, { "relay", "bore" }, path))
  lu.assertStrContains(h.read_file(path), "</svg>")
  plot.over = "pairs"
  plot.cases = { "10", "100" }
  local kept = bench("results").new()
  kept:add("throughput", "10", "relay", 1, "speed", 2)
  lu.assertTrue(plots.draw(kept, plot, { "relay" }, path))
  plot.metric = "cpu" -- nothing to be seen
  lu.assertFalse(plots.draw(kept, plot, { "relay" }, path))
end

function T.test_a_page_of_nothing()
  local result = h.run({ h.source .. "bench/run", "page", "--into",
    h.tmpdir() })
  lu.assertEquals(result.status, 1)
  lu.assertStrContains(result.stderr, "bench: there are no numbers in ")
end

-- What was kept says that the relay failed: so does the status, and a system
-- that is not there or another's failure is none.
function T.test_failures_are_told()
  local dir = h.tmpdir()
  local kept = bench("results").new()
  kept:add("trips", "64 bytes", "relay", 1, "p50", 90)
  kept:add("pairs", "5000", "ssh -R", 1, "failed", "only 2835 pairs in 20 s")
  kept:keep(dir .. "/full.tsv")
  lu.assertEquals(h.run({ h.source .. "bench/run", "page", "--into", dir })
    .status, 0)
  kept:add("exactness", "4", "relay", 1, "holds", "a FIN instead of a reset")
  kept:add("trips", "", "bore", 0, "failed", "it never listened")
  kept.file:close()
  local result = h.run({ h.source .. "bench/run", "page", "--into", dir })
  lu.assertEquals(result.status, 1)
  lu.assertStrContains(result.stdout,
    "failed: relay: exactness 4: a FIN instead of a reset\n" ..
    "failed: bore: trips : it never listened\n")
end

-- That it runs, and what must be so whatever the machine is.
function T.test_comparison()
  if h.sanitized then
    h.skip("it measures a release build")
  end
  local dir = h.tmpdir()
  local out = h.output_of({ h.source .. "bench/run", "quick", "--into", dir,
    "--rounds", "1", "--only", "exactness,trips,connections,first_byte",
    "--systems", "relay,relay-tls,direct", seconds = 60 })
  lu.assertStrContains(out, "| relay | yes | yes | yes | yes | yes | yes | yes")
  lu.assertStrContains(out, "\n| relay, TLS | yes | yes | yes | yes | yes | ")
  local kept = bench("results").load(dir .. "/quick.tsv")
  for _, load in ipairs({ "trips", "connections", "first byte" }) do
    lu.assertEquals(#kept:systems(load), 3)
    for _, row in ipairs(kept.rows) do
      lu.assertNotEquals(row.metric, "failed", row.value)
    end
  end
  for _, delay in ipairs({ 20, 100 }) do
    local ms = kept:values("first byte", delay, "relay", "ms")
    lu.assertTrue(ms[1] >= delay, "a byte was faster than its way")
  end
  lu.assertStrContains(h.read_file(dir .. "/quick.md"), "relay PORT --listen")
end

return T
