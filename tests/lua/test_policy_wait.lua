-- SPDX-License-Identifier: MIT
--
-- relay.wait: a hook waits for whatever calls back; and waits of no time, which
-- let everybody else go on.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")

local T = { limit = 60 }

-- Hooks wait for one another: `visitor` for the tick that wakes it.
function T.test_what_it_is_called_with_is_returned()
  local relay, agent = policy.scene([[
    local waiting = {}
    return {
      visitor = function(conn)
        local a, b, c = relay.wait(function(wake)
          waiting[#waiting + 1] = wake
        end)
        return conn:tag("got", ("%s,%s,%s"):format(a, b, c))
      end,
      tick = function()
        for _, wake in ipairs(waiting) do
          print("woke", wake(1, nil, "three"), wake(2))
        end
        waiting = {}
        return 0.05
      end }]])
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  relay:wait_log("info woke true false")
  relay:wait_log("visitor closed [^\n]*got=1,nil,three")
end

-- What waiting in `start` and in background does, by what it prints.
for name, case in pairs({
  at_once = { [[print(relay.wait(function(wake) wake("now", 2) end))]],
    "info now 2" },
  no_values = { [[print(select("#", relay.wait(function(w) w() end)), ".")]],
    "info 0 ." },
  the_first_call_counts = { [[print(relay.wait(function(wake)
    wake("first") wake("second") end))]], "info first\n" },
  timeout = { [[local late
    print(relay.wait(function(wake) late = wake end, 0.01))
    print("late:", late("x"))]], "info nil timeout\n.*info late: false" },
  sooner_than_its_timeout = { [[
    print(relay.wait(function(wake) relay.spawn(wake, "soon") end, 0.05))
    relay.sleep(0.1) print("still here")]],
    "info soon\n.*info still here" },
  fn_waits = { [[print(relay.wait(function(wake)
    relay.sleep(0.01) wake("slept") end))]], "info slept" },
  in_a_coroutine_of_its_own = { [[
    local co = coroutine.wrap(function()
      print("in it:", relay.wait(function(wake) relay.spawn(wake, "x") end))
      return "out"
    end)
    print(co())]], "info in it: x\n.*info out" },
  error_in_fn = { [[relay.wait(function() error("in fn") end)]],
    "policy.lua:%d+: in fn" },
  not_a_function = { [[relay.wait(5)]], "function expected, got number" },
  no_time = { [[relay.wait(print, 0)]], "it cannot be 0" },
  many_values = { [[local function many(n) if n > 0 then
      return n, many(n - 1) end end
    print(select("#", relay.wait(function(wake)
      relay.spawn(wake, many(150)) end)))]], "info 150" },
  nobody_waits_any_more = { [[local wake
    local co = coroutine.create(function()
      relay.wait(function(w) wake = w end) end)
    relay.spawn(function() relay.sleep(0.01) print("woke", wake()) end)
    coroutine.resume(co) print("went on")]],
    "info woke true\n.*info went on" },
}) do
  T["test_" .. name] = function()
    local relay = policy.relay(
      "return { start = function() relay.spawn(function() " .. case[1] ..
      " end) end }")
    relay:wait_log(case[2])
  end
end

function T.test_a_hook_that_was_ended_is_not_woken()
  local relay, agent = policy.scene([[
    local wake
    return {
      visitor = function(conn)
        print("waits", conn.id)
        relay.wait(function(w) wake = w end)
        print("went on", conn.id)
      end,
      tick = function() return 0.02 end,
      agent_gone = function() print("woke", wake("x")) end }]])
  local visitor = h.connect(agent)
  local id = relay:wait_log("info waits (%d+)")
  visitor:reset()
  relay:wait_log("visitor closed")
  agent:stop()
  relay:wait_log("info woke false")
  lu.assertEquals(policy.count(relay, "went on " .. id), 0)
end

-- The loop's clock stands while a script computes; times count from when they
-- are asked for.
function T.test_a_wait_after_long_work_is_no_shorter()
  local path = policy.write([[
    local function work(seconds)
      local began = relay.now()
      while relay.now() - began < seconds do end
    end
    work(0.6)
    relay.kv.set("key", "kept", 0.5)
    return { start = function()
      local before = relay.now()
      relay.every(0.5, function()
        print("every:", relay.now() - before >= 0.5)
      end)
      relay.sleep(0.3)
      print("slept:", relay.now() - before >= 0.3)
      print("key:", relay.kv.get("key"))
      relay.sleep(0.4)
    end }]])
  local said = h.run({ h.program("relay"), "0", "--check", "--script",
    path }).stderr
  for _, text in ipairs { "slept: true", "key: kept", "every: true" } do
    lu.assertStrContains(said, "info " .. text .. "\n")
  end
end

-- Such a module would take a wait for a yield of the coroutine's own, and go on
-- with it before it is over.
function T.test_not_where_a_c_module_resumes()
  local said = policy.run([[
    local foreign = require "foreign"
    print("sleeps:", foreign.resume(coroutine.create(relay.sleep), 0.01))
    print("yields:", foreign.resume(coroutine.create(coroutine.yield), 5))
    print("within:", foreign.resume(coroutine.create(function()
      return coroutine.wrap(pcall)(relay.sleep, 0.01)
    end)))
    print("socket:", foreign.resume(coroutine.create(function()
      return pcall(relay.tcp().connect, relay.tcp(), "127.0.0.1", 1)
    end)))
    relay.sleep(0.05)
    print("waits:", coroutine.wrap(function()
      print("beside:", foreign.resume(coroutine.create(print)))
      relay.sleep(0.01)
      return "still"
    end)())]], { env = { LUA_CPATH = os.getenv("RELAY_TEST_BUILD") ..
      "/tests/?.so;;" } })
  local refused = " cannot wait in a coroutine that a C module resumes"
  for _, text in ipairs { "sleeps: false relay.sleep" .. refused,
    "yields: true 5", "within: true false relay.sleep cannot wait here",
    "socket: true false tcp:connect" .. refused, "beside: true",
    "waits: still" } do
    lu.assertStrContains(said, "info " .. text .. "\n")
  end
end

function T.test_neither_in_log_nor_at_load()
  local relay = policy.relay([[
    print(pcall(relay.wait, function() end))
    return { log = function(event)
      if event.msg == "now" then relay.wait(print) end end,
      start = function() relay.log("info", "now") end }]])
  relay:wait_log("info false relay.wait cannot wait here")
  relay:wait_log("policy hook failed hook=log [^\n]*cannot wait here")
end

-- Two that wake each other without end, and one that sleeps no time.
for name, script in pairs({
  sleeps = [[while true do relay.sleep(0) end]],
  wakes = [[local other
    local function ping() while true do
      relay.wait(function(w) if other then other() end other = w end) end end
    relay.spawn(ping) relay.spawn(ping)]],
}) do
  T["test_others_go_on_beside_endless_" .. name] = function()
    local relay, agent = policy.scene(
      "return { start = function() relay.spawn(function() " .. script ..
      " end) end, tick = function() print('tick') return 0.05 end }")
    for _ = 1, 20 do
      lu.assertEquals(policy.ask(agent, "hello"), "hello")
    end
    h.wait_until("time goes on", function()
      return policy.count(relay, "info tick") > 3
    end)
  end
end

return T
