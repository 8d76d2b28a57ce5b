-- SPDX-License-Identifier: MIT
--
-- Example policies that put several agents behind one port, and choose: by
-- address, by time, by health, or a few visitors at a time.

local lu = require("luaunit")
local example = require("example")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local typed = require("typed")

local T = { limit = 60 }

function T.tearDown()
  typed.close_all()
end

-- An agent of that name whose service nobody listens at.
local function broken_agent(relay, name)
  return h.start_expose(relay, real.free_port(), { "--name", name })
end

-- A visitor that is let in, and reset, as there is no service.
local function failed_visit(relay, port)
  local before = policy.count(relay, "visitor closed")
  lu.assertEquals({ policy.ask({ port = port }) }, { "", "reset" })
  h.wait_until("the visit is over", function()
    return policy.count(relay, "visitor closed") > before
  end)
end

-- Visits until the log says it. One whose own bytes meet the reset of its data
-- connection before the agent's word is read is no refusal.
local function fail_until(relay, port, words)
  h.wait_until("the log says " .. words, function()
    policy.ask({ port = port })
    return relay:log():find(words, 1, true)
  end)
end

-- ---- sticky_agents ----------------------------------------------------------

local ADDRESSES = 60

-- Who serves each of many addresses.
local function servers(relay, port)
  local list = {}
  for i = 1, ADDRESSES do
    list[i] = example.ask(relay, port, { from = "127.0.1." .. i })
  end
  return list
end

function T.test_sticky_agents()
  local relay, port = example.shared("sticky_agents")
  local agents = {}
  for _, name in ipairs({ "one", "two", "three" }) do
    agents[name] = example.agent(relay, name)
  end
  local first, shares = servers(relay, port), {}
  for _, name in ipairs(first) do
    shares[name] = (shares[name] or 0) + 1
  end
  for name in pairs(agents) do
    lu.assertTrue((shares[name] or 0) > ADDRESSES / 6, name)
  end
  example.reload(relay)
  lu.assertEquals(servers(relay, port), first)
  agents.two:stop()
  relay:wait_log("agent gone")
  for i, name in ipairs(servers(relay, port)) do
    lu.assertTrue(name == first[i] or first[i] == "two", i)
    lu.assertNotEquals(name, "two")
  end
  -- It comes back, and gets its own visitors.
  agents.two = example.agent(relay, "two")
  lu.assertEquals(servers(relay, port), first)
end

function T.test_sticky_agents_without_any()
  local relay, port = example.shared("sticky_agents")
  local early = h.connect(port)
  early:send("hello")
  h.wait_until("the visitor is there", function()
    return relay:fds() >= 5
  end)
  example.agent(relay, "one")
  lu.assertEquals(early:recv_exact(5), "hello")
  early:close()
end

-- ---- night_shift ------------------------------------------------------------

-- A time zone where it is noon or a bit later, and a time of it, in so many
-- seconds from now.
local function noon(seconds)
  local hour = tonumber(os.date("!%H"))
  local zone = ("NOON%d"):format(hour - 12)
  return zone, os.date("!%H:%M:%S", os.time() - (hour - 12) * 3600 + seconds)
end

function T.test_night_shift()
  local zone, night = noon(3)
  local relay, port = example.shared("night_shift", { env = { TZ = zone },
    change = { ['"20:00:00"'] = '"' .. night .. '"' } })
  example.agent(relay, "night")
  lu.assertEquals(example.ask(relay, port), "night") -- nobody else is there
  example.agent(relay, "day")
  local live, from = example.visit(port)
  relay:wait_log("the day shift has begun")
  relay:wait_log("the night shift has begun")
  lu.assertEquals(example.ask(relay, port), "night")
  example.reload(relay)
  lu.assertEquals(example.ask(relay, port), "night")
  live:send("still")
  lu.assertEquals(live:recv_exact(5), "still")
  live:close()
  lu.assertEquals(example.server_of(relay, from), "day")
  relay:wait_log("visitor closed [^\n]*shift=day")
  relay:wait_log("visitor closed [^\n]*shift=night")
end

-- ---- canary -----------------------------------------------------------------

function T.test_canary_has_its_share()
  local relay, port = example.shared("canary")
  local canary = example.agent(relay, "canary")
  lu.assertEquals(example.ask(relay, port), "canary") -- nobody else is there
  example.agent(relay, "stable")
  example.agent(relay, "stable")
  local count = 0
  for i = 1, 60 do
    if example.ask(relay, port) == "canary" then
      count = count + 1
    end
    if i == 30 then
      example.reload(relay)
    end
  end
  lu.assertEquals(count, 3)
  canary:stop()
  relay:wait_log("agent gone")
  for _ = 1, 20 do
    lu.assertEquals(example.ask(relay, port), "stable")
  end
end

function T.test_canary_that_fails_pauses()
  local relay, port = example.shared("canary", { change = {
    ["SHARE = 5"] = "SHARE = 50", ["PAUSE = 300"] = "PAUSE = 2" } })
  broken_agent(relay, "canary")
  example.agent(relay, "stable")
  for i = 1, 3 do
    lu.assertEquals(example.ask(relay, port), "stable")
    failed_visit(relay, port)
    if i == 2 then
      example.reload(relay)
    end
  end
  -- The agent says that it was refused, and resets what it has: whichever of
  -- the two the relay sees first.
  relay:wait_log("the canary pauses: 3 failures, ECONNRE")
  lu.assertEquals(example.ask(relay, port), "stable")
  lu.assertEquals(example.ask(relay, port), "stable")
  h.wait_until("the canary is tried again", function()
    return policy.ask({ port = port }) == ""
  end)
  example.assert_empty(relay, "state.served", "return { state = state }")
end

function T.test_canary_that_succeeds_is_forgiven()
  local relay, port = example.shared("canary", { change = {
    ["SHARE = 5"] = "SHARE = 100", ["FAILURES = 3"] = "FAILURES = 2" } })
  example.agent(relay, "stable")
  for _ = 1, 2 do
    local bad = broken_agent(relay, "canary")
    failed_visit(relay, port)
    bad:stop()
    local good = example.agent(relay, "canary")
    lu.assertEquals(example.ask(relay, port), "canary")
    good:stop()
  end
  lu.assertEquals(policy.count(relay, "the canary pauses"), 0)
end

-- ---- failover ---------------------------------------------------------------

function T.test_failover()
  local relay, port = example.shared("failover", { change = {
    ["BENCH = 30"] = "BENCH = 3" } })
  example.agent(relay, "standby")
  lu.assertEquals(example.ask(relay, port), "standby")
  local primary = example.agent(relay, "primary")
  lu.assertEquals(example.ask(relay, port), "primary")
  primary:stop()
  relay:wait_log("agent gone")
  lu.assertEquals(example.ask(relay, port), "standby")
  local broken = broken_agent(relay, "primary")
  failed_visit(relay, port)
  example.reload(relay)
  fail_until(relay, port, "primary is benched: its service cannot be reached")
  lu.assertEquals(example.ask(relay, port), "standby")
  example.reload(relay)
  lu.assertEquals(example.ask(relay, port), "standby")
  broken:stop()
  example.agent(relay, "primary")
  h.wait_until("the primary is tried again", function()
    return example.ask(relay, port) == "primary"
  end)
  example.assert_empty(relay, "chosen", "return { chosen = chosen }")
end

function T.test_failover_when_all_are_benched()
  local relay, port = example.shared("failover", { change = {
    ["FAILURES = 2"] = "FAILURES = 1" } })
  broken_agent(relay, "primary")
  failed_visit(relay, port)
  local standby = broken_agent(relay, "standby")
  fail_until(relay, port, "standby is benched")
  standby:stop()
  relay:wait_log("agent gone")
  failed_visit(relay, port) -- the primary, benched as it is
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
end

return T
