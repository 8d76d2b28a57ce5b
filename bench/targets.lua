-- SPDX-License-Identifier: MIT
--
-- What this relay is meant to reach beside others, and whether it does: ratios
-- of the same round, their median, and between what bounds the true one is.

local summary = require("summary")
local systems = require("systems")

local targets = {}

local CASES <const> = { "1 in", "1 out", "8 in", "8 out" }

local function is_peer(entry)
  return entry.kind == "proxy" or entry.kind == "tunnel"
end

local function is_tunnel(entry)
  return entry.kind == "tunnel"
end

local function is_secret_tunnel(entry)
  return is_tunnel(entry) and entry.secret
end

-- The name of the system that is best in a case among those that `filter` lets
-- pass, by its median; `sign` is 1 where more is better, else -1.
function targets.best(results, load, case, metric, filter, sign)
  local best, most
  for _, name in ipairs(results:systems(load)) do
    local values = results:values(load, case, name, metric)
    if systems[name] and filter(systems[name]) and #values > 0 then
      local value = summary.median(values) * sign
      if not most or value > most then
        best, most = name, value
      end
    end
  end
  return best
end

-- What is asked: {what, load, case, metric, ours, theirs, at_least= | at_most=}
-- where `theirs` is a name or a filter.
local function questions()
  local list = {}
  local function ask(what, load, case, metric, theirs, bound)
    table.insert(list, { what = what, load = load, case = case,
      metric = metric, ours = bound.ours or "relay", theirs = theirs,
      at_least = bound.at_least, at_most = bound.at_most })
  end
  for _, case in ipairs(CASES) do
    ask("throughput", "throughput", case, "speed", is_tunnel, { at_least = 2 })
    ask("throughput", "throughput", case, "speed", "haproxy", { at_least = 2 })
    ask("throughput", "throughput", case, "speed", "haproxy, forced",
      { at_least = case:find("1") and 1.1 or 1.3 })
    ask("CPU a GB", "throughput", case, "cpu", is_tunnel, { at_most = 0.35 })
    ask("CPU a GB", "throughput", case, "cpu", "haproxy, forced",
      { at_most = 0.9 })
  end
  ask("round trip, p50", "trips", "64 bytes", "p50", is_peer, { at_most = 1 })
  ask("connections a second", "connections", "16 at a time", "speed",
    is_tunnel, { at_least = 1.5 })
  ask("connections with a script", "connections", "16 at a time", "speed",
    "relay", { ours = "relay, script", at_least = 0.97 })
  for _, case in ipairs({ "1 in", "8 in" }) do
    ask("throughput with a script", "throughput", case, "speed", "relay",
      { ours = "relay, script", at_least = 0.97 })
  end
  for _, case in ipairs(CASES) do
    ask("throughput over TLS", "throughput", case, "speed", is_secret_tunnel,
      { ours = "relay, TLS", at_least = 1 })
    ask("CPU a GB over TLS", "throughput", case, "cpu", is_secret_tunnel,
      { ours = "relay, TLS", at_most = 1 })
    ask("throughput over TLS", "throughput", case, "speed", "stunnel",
      { ours = "relay, TLS", at_least = 1.3 })
  end
  return list
end

local function answer(results, question)
  local theirs = question.theirs
  if type(theirs) == "function" then
    theirs = targets.best(results, question.load, question.case,
      question.metric, theirs, question.at_least and 1 or -1)
  end
  local over, under = results:pairs_of(question.load, question.case,
    question.metric, question.ours, theirs or "")
  if #over == 0 then
    return nil
  end
  local ratio, low, high = summary.ratio(over, under)
  return { what = question.what, case = question.case, ours = question.ours,
    theirs = theirs, ratio = ratio, low = low, high = high,
    at_least = question.at_least, at_most = question.at_most,
    met = question.at_least and ratio >= question.at_least or
      question.at_most and ratio <= question.at_most or false }
end

-- The first byte and the memory of a pair are held against numbers, not peers.
local function absolute(results)
  local list = {}
  local function compare(what, case, values, most, unit)
    if #values > 0 then
      local low, high = summary.interval(values)
      table.insert(list, { what = what, case = case, ours = "relay",
        theirs = unit, ratio = summary.median(values) / most.of,
        low = low / most.of, high = high / most.of, at_most = most.bound,
        met = summary.median(values) / most.of <= most.bound })
    end
  end
  compare("first byte, the agent 100 ms off", "100",
    results:values("first byte", 100, "relay", "ms"), { of = 100, bound = 1.1 },
    "a round trip")
  for _, count in ipairs({ 1000, 5000 }) do
    compare("memory of an idle pair at the relay", tostring(count),
      results:values("pairs", count, "relay", "relay memory"),
      { of = 2048, bound = 1 }, "2 KiB")
  end
  return list
end

-- All that can be answered from these results, in the order of the questions:
-- {what, case, ours, theirs, ratio, low, high, at_least | at_most, met}.
function targets.answers(results)
  local list = {}
  for _, question in ipairs(questions()) do
    local found = answer(results, question)
    if found then
      table.insert(list, found)
    end
  end
  for _, found in ipairs(absolute(results)) do
    table.insert(list, found)
  end
  return list
end

return targets
