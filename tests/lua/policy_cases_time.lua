-- SPDX-License-Identifier: MIT
--
-- Cases (see policy_cases.lua) of time: sleep, spawn, every, tick, resolve, and
-- the coroutines of a script that wait.

local lu = require("luaunit")

local cases = {}

-- ---- time -------------------------------------------------------------------

cases["now and sleep"] = function(scene)
  local w = scene.load([[return { visitor = function()
    local began = relay.now()
    assert(math.type(began) == "float")
    for _, s in ipairs { 0, 0.001, 0.5, 0.0001 } do
      relay.sleep(s)
      print(("%.3f"):format(relay.now() - began))
    end end }]])
  local verdict = w.call("visitor", scene.T.conn(), {})
  w.advance(0.5)
  lu.assertTrue(verdict.pending)
  w.advance(0.5)
  lu.assertEquals(verdict, { allow = true })
  lu.assertEquals(scene.told(w), { "info 0.000", "info 0.001", "info 0.501",
    "info 0.502" })
end

cases["sleepers wake in their order"] = function(scene)
  local w = scene.load([[return { visitor = function(conn)
    relay.sleep(conn.port / 1000) print(conn.port) end }]])
  for _, port in ipairs({ 300, 100, 200, 100 }) do
    w.call("visitor", scene.T.conn { port = port }, {})
  end
  w.advance(0.25)
  lu.assertEquals(scene.told(w), { "info 100", "info 100", "info 200" })
end

cases["where nothing may wait"] = function(scene)
  local w = scene.load([[return { visitor = function()
    print(pcall(table.sort, { 3, 2, 1 }, function() relay.sleep(1) end))
    print(pcall(string.gsub, "x", "x", function() relay.sleep(1) end))
  end, log = function(event)
    if event.msg == "sleep" then relay.sleep(1) end end }]])
  w.call("visitor", scene.T.conn(), {})
  lu.assertEquals(scene.told(w), {
    "info false policy.lua:2: relay.sleep cannot wait here",
    "info false policy.lua:3: relay.sleep cannot wait here" })
  local verdict = w.call("log", { msg = "sleep" })
  lu.assertEquals(scene.clean(verdict.error),
    "policy.lua:5: relay.sleep cannot wait here")
end

cases["spawn"] = function(scene)
  local w = scene.load([[return { visitor = function()
    relay.spawn(function(a, b, c)
      print("spawned", a, b, c)
      relay.sleep(1)
      print("again")
      relay.spawn(error, "out", 0)
    end, 1, nil, "three")
    print("first") end }]])
  w.call("visitor", scene.T.conn(), {})
  lu.assertEquals(scene.told(w), { "info first" })
  w.advance(0)
  w.advance(1)
  lu.assertEquals(scene.told(w), { "info first", "info spawned 1 nil three",
    "info again", "spawn: out" })
end

cases["spawn without end"] = function(scene)
  local w = scene.load([[local n = 0
    local function again() n = n + 1 relay.spawn(again) end
    return { start = again, visitor = function() return n > 100 end }]])
  w.advance(0.1)
  lu.assertEquals(w.call("visitor", scene.T.conn(), {}), { allow = true })
end

cases["every"] = function(scene)
  local w = scene.load([[local n = 0 return { start = function()
    relay.every(0.25, function() n = n + 1 print(n)
      if n == 2 then error("two") end
      if n == 4 then return false end end)
    local slow
    slow = relay.every(0.25, function() print("slow") relay.sleep(0.3)
      slow:stop() end)
    assert(type(slow) == "userdata") end }]])
  w.advance(2)
  lu.assertEquals(scene.told(w), { "info 1", "info slow", "info 2",
    "every: policy.lua:3: two", "info 3", "info 4" })
end

cases["tick"] = function(scene)
  local w = scene.load([[local n, began = 0, relay.now()
    return { tick = function(now)
      n = n + 1
      print(n, now - began)
      if n == 1 then return 0.5 elseif n == 2 then error("two")
      elseif n == 3 then return false elseif n == 4 then relay.sleep(0.7)
      end
    end }]])
  w.advance(4)
  lu.assertEquals(scene.told(w), { "info 1 1.0", "info 2 1.5",
    "tick: policy.lua:5: two", "info 3 2.0",
    "tick: tick returned a boolean; it may return a number of seconds or nil",
    "info 4 2.5", "info 5 3.5", "info 6 4.0" })
end

cases["tick that waits too long"] = function(scene)
  local w = scene.load("return { tick = function() relay.sleep(60) end }")
  w.advance(3)
  lu.assertEquals(scene.told(w), { "tick: it waited too long" })
end

cases["resolve"] = function(scene)
  local w = scene.load([[return { visitor = function()
    local list, why = relay.resolve("a.example")
    print(table.concat(list, " "), why)
    print(relay.resolve("b.example"))
    relay.resolve("slow.example")
    print("slow") end }]], { hosts = {
      ["a.example"] = { "192.0.2.1", "2001:db8::1" },
      ["slow.example"] = { "192.0.2.2", delay = 1 } } })
  local verdict = w.call("visitor", scene.T.conn(), {})
  lu.assertTrue(verdict.pending)
  w.advance(0.5)
  lu.assertEquals(#w.logs, 2)
  w.advance(0.6)
  lu.assertEquals(scene.told(w), { "info 192.0.2.1 2001:db8::1 nil",
    "info nil unknown node or service", "info slow" })
  lu.assertEquals(verdict, { allow = true })
end

cases["news that wait and fail"] = function(scene)
  local w = scene.load([[return {
    open = function() relay.sleep(1) error("in open") end,
    agent_gone = function(agent, why) print(agent.name, why, agent.alive)
      error("in gone") end }]])
  local agent = scene.T.agent { name = "a" }
  w.call("auth", agent)
  w.call("open", scene.T.conn())
  lu.assertEquals(scene.clean(w.call("agent_gone", agent, "EOF").error),
    "policy.lua:4: in gone")
  w.advance(1)
  lu.assertEquals(scene.told(w), { "info a EOF false",
    "agent_gone: policy.lua:4: in gone", "open: policy.lua:2: in open" })
end

-- Not every engine has it.
local WAIT = [[return { visitor = function()
  if not pcall(function() return relay.wait end) then return false end
  print(relay.wait(function(wake) wake("now", 2) end))
  print(select("#", relay.wait(function(wake) wake() end)))
  print(relay.wait(function(wake) print(wake(1, nil, 3), wake(2)) end))
  local late
  print(relay.wait(function(wake) late = wake end, 0.1))
  print(late("x"))
  print(relay.wait(function(wake) relay.spawn(wake, "soon") end, 0.1))
  print(relay.wait(function(wake) relay.sleep(0.1) wake("slept") end))
  print(coroutine.wrap(function()
    return relay.wait(function(wake) relay.spawn(wake, "inner") end) end)())
  relay.sleep(0.2)
  print(pcall(relay.wait, function(wake) late = wake error("in it", 0) end))
  print(late("x"))
  relay.wait(print, 0) end }]]

cases["wait"] = function(scene)
  local w = scene.load(WAIT)
  local verdict = w.call("visitor", scene.T.conn(), {})
  w.advance(1)
  if #w.logs == 0 then
    return
  end
  lu.assertEquals(scene.clean(verdict.error), "policy.lua:16: bad argument " ..
    "#2 to 'wait' (it cannot be 0)")
  local told = scene.told(w)
  table.remove(told)
  lu.assertEquals(told, { "info now 2", "info 0", "info true false",
    "info 1 nil 3", "info nil timeout", "info false", "info soon",
    "info slept", "info inner", "info false in it",
    "info false" })
end

-- ---- coroutines of the policy -----------------------------------------------

cases["waits pass through coroutines"] = function(scene)
  local w = scene.load([[return { visitor = function()
    local co = coroutine.wrap(function(a)
      relay.sleep(0.1)
      local b = coroutine.yield(a + 1)
      local inner = coroutine.create(function()
        relay.sleep(0.1) coroutine.yield("in") relay.sleep(0.1) return "out"
      end)
      print(coroutine.resume(inner))
      print(coroutine.resume(inner))
      print(coroutine.resume(inner))
      coroutine.yield(b * 2)
      error("three")
    end)
    print(co(1), co(21))
    print(pcall(co))
    print(pcall(co))
    local t = coroutine.create(relay.sleep)
    relay.spawn(function() coroutine.resume(t, 0.5) end)
    relay.sleep(0.1)
    print(coroutine.resume(t))
    print(pcall(coroutine.close, t))
    print(pcall(function() relay.sleep(0.1) error("after") end))
    print(select("#", relay.sleep(0))) end }]])
  local verdict = w.call("visitor", scene.T.conn(), {})
  w.advance(1.5)
  lu.assertEquals(verdict, { allow = true })
  lu.assertEquals(scene.told(w), { "info true in", "info true out",
    "info false cannot resume dead coroutine", "info 2 42",
    "info false policy.lua:12: three",
    "info false cannot resume dead coroutine",
    "info false cannot resume a coroutine that waits",
    "info false cannot close a coroutine that waits",
    "info false policy.lua:22: after", "info 0" })
end

cases["what is to be closed is closed"] = function(scene)
  local w = scene.load([[return { visitor = function(conn)
    local guard <close> = setmetatable({}, { __close = function()
      print("closed", pcall(relay.sleep, 1))
    end })
    relay.sleep(60) end }]])
  w.call("visitor", scene.T.conn(), {})
  w.advance(3)
  lu.assertEquals(scene.told(w),
    { "info closed false relay.sleep cannot wait here" })
end

return cases
