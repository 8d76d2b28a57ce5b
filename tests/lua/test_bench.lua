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

return T
