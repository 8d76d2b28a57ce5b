-- SPDX-License-Identifier: MIT
--
-- What this relay is meant to reach beside others, and whether it does: ratios
-- of the same round, their median, and between what bounds the true one is.

local summary = require("summary")
local systems = require("systems")

local targets = {}

local CASES <const> = { "1 in", "1 out", "8 in", "8 out" }
local SHORT <const> = "16 at a time"

local function is_peer(entry)
  return entry.kind == "proxy" or entry.kind == "tunnel"
end

local function is_tunnel(entry)
  return entry.kind == "tunnel"
end

local function is_secret_tunnel(entry)
  return is_tunnel(entry) and entry.secret
end

local function is_tls_tunnel(entry)
  return is_tunnel(entry) and entry.secret == "TLS"
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

-- What is asked: {what, than, load, case, metric, ours, theirs,
-- at_least= | at_most=} where `theirs` is a name or a filter, and `than` what
-- that means.
local function ask(list, question)
  question.ours = question.ours or "relay"
  table.insert(list, question)
end

-- Of the throughput, or of the CPU of a GB, in all its cases.
local function ask_of_bytes(list, what, metric, than, theirs, options)
  for _, case in ipairs(CASES) do
    ask(list, { what = what, than = than, load = "throughput",
      case = case .. (options.suffix or ""), metric = metric, theirs = theirs,
      ours = options.ours, at_most = options.at_most,
      at_least = case:find("8") and options.at_least_8 or options.at_least })
  end
end

local function questions()
  local list, tls = {}, "relay, TLS"
  local function of_speed(...)
    ask_of_bytes(list, "throughput", "speed", ...)
  end
  local function of_cpu(...)
    ask_of_bytes(list, "CPU a GB", "cpu", ...)
  end
  of_speed("the best tunnel", is_tunnel, { at_least = 2 })
  of_speed("haproxy", "haproxy", { at_least = 2 })
  of_speed("haproxy, forced", "haproxy, forced",
    { at_least = 1.1, at_least_8 = 1.3 })
  of_cpu("the best tunnel", is_tunnel, { at_most = 0.35 })
  of_cpu("haproxy, forced", "haproxy, forced", { at_most = 0.9 })
  of_speed("the same without", "relay",
    { ours = "relay, script", at_least = 0.97, suffix = ", script" })
  of_speed("the best TLS tunnel", is_tls_tunnel, { ours = tls, at_least = 1 })
  of_cpu("the best TLS tunnel", is_tls_tunnel, { ours = tls, at_most = 1 })
  of_speed("the best encrypted tunnel", is_secret_tunnel,
    { ours = tls, at_least = 1 })
  of_cpu("the best encrypted tunnel", is_secret_tunnel,
    { ours = tls, at_most = 1 })
  of_speed("stunnel", "stunnel", { ours = tls, at_least = 1.3 })
  ask(list, { what = "round trip, p50", than = "the best of all",
    load = "trips", case = "64 bytes", metric = "p50", theirs = is_peer,
    at_most = 1 })
  ask(list, { what = "connections a second", than = "the best tunnel",
    load = "connections", case = SHORT, metric = "speed", theirs = is_tunnel,
    at_least = 1.5 })
  ask(list, { what = "connections a second", than = "the same without",
    load = "connections", case = SHORT, metric = "speed",
    ours = "relay, script", theirs = "relay", at_least = 0.97 })
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
  return { what = question.what, than = question.than,
    load = question.load, case = question.case, ours = question.ours,
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
      table.insert(list, { what = what, than = unit, case = case,
        ours = "relay", theirs = unit, ratio = summary.median(values) / most.of,
        low = low / most.of, high = high / most.of, at_most = most.bound,
        met = summary.median(values) / most.of <= most.bound })
    end
  end
  compare("first byte, agent and relay 100 ms apart", "100",
    results:values("first byte", 100, "relay", "ms"), { of = 100, bound = 1.1 },
    "a round trip")
  for _, count in ipairs({ 1000, 5000 }) do
    compare(("the relay's memory for each of %d idle pairs"):format(count),
      tostring(count),
      results:values("pairs", count, "relay", "relay memory"),
      { of = 2048, bound = 1 }, "2 KiB")
  end
  return list
end

-- All that can be answered from these results, in the order of the questions:
-- {what, than, load, case, ours, theirs, ratio, low, high, at_least | at_most,
-- met}.
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
