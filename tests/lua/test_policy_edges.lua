-- SPDX-License-Identifier: MIT
--
-- The rarer answers and failures: news whose hook waits for ever, odd answers
-- of tick and every, options that limit the script itself, limits of an agent
-- without an address, one port on two hosts.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

-- ---- news -----------------------------------------------------------------

function T.test_news_that_wait_too_long()
  local relay, agent = policy.scene([[return {
    open = function() relay.sleep(60) end,
    close = function() relay.sleep(60) end,
    agent_gone = function() relay.sleep(60) end }]])
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  agent:stop()
  for _, hook in ipairs({ "open", "close", "agent_gone" }) do
    relay:wait_log("policy hook failed hook=" .. hook ..
      ' error="it waited too long"')
  end
end

-- ---- tick and every --------------------------------------------------------

function T.test_tick_may_return_an_interval_only()
  for answer, words in pairs({
    ["'x'"] = "tick returned a string; it may return a number of seconds",
    ["false"] = "tick returned a boolean; it may return",
    ["-1"] = "tick returned -1, which is not an interval",
    ["0"] = "tick returned 0, which is not an interval",
    ["0 / 0"] = "which is not an interval",
    ["1 / 0"] = "tick returned inf, which is not an interval",
  }) do
    local relay = policy.relay([[local n = 0 return { tick = function()
      n = n + 1
      if n == 1 then return 0.02 end
      if n == 2 then return ]] .. answer .. [[ end
      print("tick", n)
    end }]])
    h.wait_until(words, function()
      return relay:log():find(words, 1, true)
    end)
    relay:wait_log("tick 3")
    relay:stop()
  end
end

function T.test_a_long_interval_ends_with_its_script()
  local relay = policy.relay([[return { tick = function()
    print("rarely") return 3600 end }]])
  relay:wait_log("rarely")
  policy.reload(relay, [[return { tick = function()
    print("often") return 0.05 end }]])
  h.wait_until("it ticks as the new one says", function()
    return policy.count(relay, "info often") > 3
  end)
end

function T.test_every_ends_by_false_alone()
  local relay = policy.relay([[local n = 0 return { start = function()
    relay.every(0.02, function()
      n = n + 1
      print("run", n)
      if n == 1 then return 0 end
      if n == 2 then return nil end
      return n < 4
    end) end }]])
  relay:wait_log("run 4")
  sys.sleep(0.1)
  lu.assertEquals(policy.count(relay, "info run "), 4)
end

-- ---- answers ---------------------------------------------------------------

function T.test_share_is_a_boolean()
  local relay = policy.relay(([[return { allocate = function()
    return { port = %d, share = "no" } end }]]):format(real.free_port()))
  lu.assertEquals(typed.agent(relay, { refused = true }).err.code,
    "port-refused")
  relay:wait_log("allocate returned a table whose share is wrong")
end

function T.test_limits_of_an_agent_come_with_its_address()
  local relay = policy.relay([[return { auth = function(agent)
    print("early:", pcall(agent.limit, agent, { rate_in = 5 }))
    return true
  end,
  visitor = function(_, agents)
    print("then:", agents[1]:limit { rate_in = 1e6 })
  end }]])
  local agent = h.start_echoserver(relay)
  relay:wait_log("early: false [^\n]*an agent without an address has no " ..
    "limits yet")
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  relay:wait_log("then: true")
end

-- ---- options ---------------------------------------------------------------

local function check(script)
  return h.run({ h.program("relay"), "--check", "--script",
                 policy.write(script) })
end

function T.test_options_for_the_command_line_alone()
  for _, option in ipairs({ "check = true", "unsafe = false",
                            "script = 'x.lua'", "help = true",
                            "user = 'nobody'",
                            "version = true" }) do
    local result = check("return { options = { " .. option .. " } }")
    lu.assertEquals({ result.status, result.stdout }, { 1, "" })
    lu.assertStrContains(result.stderr, ("policy.lua: option '%s' is for " ..
      "the command line\n"):format(option:match("%a+")))
  end
end

function T.test_options_that_limit_the_script()
  local limits = {
    { "local s = ('x'):rep(3 << 20)",
      "script_budget = '10s', script_memory = '%s'", "64M", "2M",
      "not enough memory" },
    { "for _ = 1, 1e6 do end", "script_budget = '%s'", "10s", "1ms",
      "it took more than 1 ms of CPU time" },
  }
  for i, limit in ipairs(limits) do
    local body, option, enough, little, says = table.unpack(limit)
    local script = "return { options = { " .. option .. " }, " ..
      "start = function() " .. body .. " end }"
    local result = check(script:format(enough))
    lu.assertEquals(result.status, 0, result.stderr)
    if i == 1 or not h.stressed then -- there the collector has time of its own
      result = check(script:format(little))
      lu.assertEquals(result.status, 1)
      lu.assertStrMatches(result.stderr, "relay: [^\n]*" .. says .. "\n")
    end
  end
end

-- ---- numbers ---------------------------------------------------------------

-- "conn.id % n" deals visitors out: so ids must not go in steps.
function T.test_ids_have_no_gaps()
  local relay, agent = policy.scene([[return {
    visitor = function(conn)
      if conn.id % 2 == 0 then relay.sleep(0.01) end
      print("id", conn.id)
    end }]])
  for id = 2, 5 do
    lu.assertEquals(policy.ask(agent, "hello"), "hello")
    relay:wait_log("info id " .. id .. "\n")
  end
end

-- ---- words that help --------------------------------------------------------

function T.test_common_mistakes()
  for script, words in pairs({
    ["return { start = function() relay.slepp(1) end }"] =
      "policy.lua:1: relay has no 'slepp' (did you mean 'sleep'?)",
    ["return { start = function() relay.xyzzy(1) end }"] =
      "policy.lua:1: relay has no 'xyzzy'\n",
    ["local f = function() return log.info end f()"] =
      "policy.lua:1: undeclared variable 'log'\n",
  }) do
    lu.assertStrContains(check(script).stderr, words)
  end
  local path = h.write_file(h.tmpdir() .. "/policy.lua",
    "return { start = function() relay.sleep(1) end }")
  local result = h.run({ h.program("relay"), "--check", "--script", path })
  lu.assertStrContains(result.stderr, "policy.lua:1: undeclared variable " ..
    "'relay' (local relay = require \"relay\")")
  local relay, agent = policy.scene(
    "return { visitor = function(conn) conn.limit { idle = 5 } end }")
  policy.ask(agent)
  relay:wait_log("bad argument #1 to 'limit' %(conn or agent expected, got " ..
    "table%)")
end

-- ---- modules ---------------------------------------------------------------

function T.test_a_policy_named_as_what_it_requires()
  local directory = h.tmpdir()
  h.write_file(directory .. "/json.lua", "require 'json' return {}")
  for _, path in ipairs({ directory .. "/json.lua", "json.lua" }) do
    local relay = h.output_of({ "realpath", h.program("relay") })
    local result = h.run({ relay:match("[^\n]+"), "--check", "--script", path,
                           cwd = directory })
    lu.assertEquals(result.status, 1)
    lu.assertStrContains(result.stderr, "json.lua is the policy itself")
  end
end

-- ---- shared ports ----------------------------------------------------------

function T.test_one_port_on_two_hosts()
  local port = real.free_port()
  local script = [[return { start = function()
    print("listen:", relay.listen { host = "127.0.0.1", port = %d })
    print("again:", relay.listen { host = "127.0.0.1", port = %d })
    print("other:", relay.listen { port = %d }) end }]]
  local relay = policy.relay((script:gsub("%%d", port)))
  relay:wait_log("listen: true")
  relay:wait_log("again: true")
  relay:wait_log("other: nil address already in use")
  local line = policy.reload(relay, ([[return { start = function()
    relay.listen { host = "127.0.0.2", port = %d } end }]]):format(port), false)
  lu.assertStrContains(line, ("port %d: address already in use"):format(port))
end

return T
