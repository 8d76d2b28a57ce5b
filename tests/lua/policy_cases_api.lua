-- SPDX-License-Identifier: MIT
--
-- Cases (see policy_cases.lua) of what a script calls: boxes, limits, tags,
-- lists, log, shared ports.

local lu = require("luaunit")

local bodies = require("policy_bodies")

local run, holds, raises = bodies.run, bodies.holds, bodies.raises

local cases = {}

-- ---- boxes ------------------------------------------------------------------

cases["fields of a conn"] = function(scene)
  local T = scene.T
  local w = scene.load([[return { open = function(conn)
    print(conn.addr, conn.port, conn.listen_port, conn.bytes_in,
      conn.bytes_out, conn.duration, conn.reason, conn.eof, conn.alive,
      conn.data, conn.agent.name, math.type(conn.id), type(conn),
      tostring(conn):find("^conn %d+$")) end }]])
  local conn = T.conn { addr = "2001:db8::7", port = 555, listen_port = 443,
    bytes_in = 10, bytes_out = 20, duration = 1.5,
    agent = T.agent { name = "web" } }
  w.call("visitor", conn, { conn.agent })
  w.call("open", conn)
  lu.assertEquals(scene.told(w), { "info 2001:db8::7 555 443 10 20 1.5 nil " ..
    "false true nil web integer userdata 1 " .. #("conn " .. conn.id) })
end

cases["fields of an agent"] = function(scene)
  local w = scene.load([[return { auth = function(agent)
    print(agent.name, agent.addr, #agent.ports, agent.ports[1], agent.conns,
      agent.since, agent.alive, agent.data, math.type(agent.id), type(agent),
      tostring(agent):find("^agent %d+$") ~= nil) return true end }]])
  w.call("auth", scene.T.agent { name = "n", addr = "::1", conns = 3,
                                 since = 2 })
  w.call("auth", scene.T.agent { port = 8081 })
  lu.assertEquals(scene.told(w), {
    "info n ::1 0 nil 3 2.0 true nil integer userdata true",
    "info  192.0.2.100 1 8081 0 0.0 true nil integer userdata true" })
end

cases["the agent of a conn is one that is there"] = function(scene)
  local T = scene.T
  local w = scene.load(
    "return { open = function(conn) print(conn.agent) end }")
  local agent = T.agent()
  local conn = T.conn { agent = agent }
  w.call("auth", agent)
  w.call("open", conn)
  w.call("agent_gone", agent)
  w.call("open", conn)
  lu.assertEquals(scene.told(w),
    { "info agent " .. agent.id, "info nil" })
end

cases["an unknown field"] = raises("return conn.adr",
  "conn has no field 'adr' (did you mean 'addr'?)")
cases["an unknown field far off"] = raises("return conn.elephant",
  "conn has no field 'elephant'")
cases["an unknown field of an agent"] = raises("return agents[1].nam",
  "agent has no field 'nam' (did you mean 'name'?)")
cases["a field that is no name"] = raises("return conn[5]",
  "conn has no field '5'")
cases["a field is not assigned"] = raises("conn.addr = 5",
  "conn.addr cannot be assigned; only data can")
cases["of an agent neither"] = raises("agents[1].name = 5",
  "agent.name cannot be assigned; only data can")
cases["a method on something else"] = raises("conn.close(5)",
  "bad argument #1 to 'close' (conn or agent expected, got number)")
cases["a method of a conn on an agent"] = raises(
  "conn.tag(agents[1], 'k', 'v')",
  "bad argument #1 to 'tag' (relay.conn expected, got relay.agent)")
cases["a method on a bad self"] = raises(
  "local s = { close = conn.close } s:close()",
  "calling 'close' on bad self (conn or agent expected, got table)")
cases["no metatable to reach"] = holds(
  [[assert(getmetatable(conn) == "relay.conn")
    assert(getmetatable(agents[1]) == "relay.agent")
    assert(not pcall(setmetatable, conn, {}))]])
cases["data"] = holds([[conn.data = { 1 } assert(conn.data[1] == 1)
  conn.data = nil assert(conn.data == nil)
  agents[1].data = conn assert(agents[1].data == conn)]])
cases["one box for each"] = holds([[assert(agents[1] == relay.agents()[1])
  assert(conn == relay.conns()[1])]])

cases["dead boxes"] = function(scene)
  local T = scene.T
  local w = scene.load([[local kept return {
    visitor = function(conn) conn.data = "mine" kept = kept or conn end,
    close = function(conn)
      print(conn == kept, conn.alive, conn.data, conn.bytes_in, conn.reason)
      print(select(2, pcall(conn.close, conn)))
      relay.sleep(1)
      print("still", conn.bytes_in)
    end,
    open = function()
      print(kept.alive, kept.data, tostring(kept):find("^conn %d+$") ~= nil)
      kept.data = "new"
      print(kept.data)
      print(select(2, pcall(function() return kept.addr end)))
      print(select(2, pcall(function() kept:tag("a", "b") end)))
      print(select(2, pcall(function() kept:limit {} end)))
      print(select(2, pcall(function() return kept.adr end)))
    end }]])
  local conn = T.conn()
  w.call("visitor", conn, {})
  conn.bytes_in, conn.reason = 7, "ECONNRESET"
  w.call("close", conn)
  w.advance(1)
  w.call("open", T.conn())
  local told = scene.told(w)
  lu.assertEquals(told, {
    "info true false mine 7 ECONNRESET", "info connection is closed",
    "info still 7", "info false mine true", "info new",
    "info policy.lua:13: connection is closed",
    "info policy.lua:14: connection is closed",
    "info policy.lua:15: connection is closed",
    "info policy.lua:16: conn has no field 'adr' (did you mean 'addr'?)" })
end

cases["who is denied is dead"] = function(scene)
  local T = scene.T
  local w = scene.load([[local c, a return {
    visitor = function(conn) c = conn return false end,
    auth = function(agent) a = agent return false end,
    tick = function()
      print(c.alive, select(2, pcall(function() return c.id end)))
      print(a.alive, select(2, pcall(function() return a.id end)))
    end }]])
  local conn, agent = T.conn(), T.agent()
  w.call("visitor", conn, {})
  w.call("auth", agent)
  w.call("tick")
  lu.assertFalse(conn.alive)
  lu.assertFalse(agent.alive)
  lu.assertEquals(scene.told(w), {
    "info false policy.lua:5: connection is closed",
    "info false policy.lua:6: agent is closed" })
end

cases["an agent that is gone is no choice"] = function(scene)
  local T = scene.T
  local w = scene.load([[local a return {
    auth = function(agent) a = agent return true end,
    visitor = function() return a end }]])
  local agent = T.agent()
  w.call("auth", agent)
  lu.assertIs(w.call("visitor", T.conn(), { agent }).agent, agent)
  w.call("agent_gone", agent)
  lu.assertEquals(w.call("visitor", T.conn(), {}), { allow = true })
end

cases["closing another"] = function(scene)
  local T = scene.T
  local w = scene.load([[return { open = function(conn)
    print(relay.conns()[1]:close("make room"), relay.conns()[1] == conn)
    print(relay.agents()[1]:close())
  end, close = function(conn) print(conn.reason) end }]])
  local first, second, agent = T.conn(), T.conn(), T.agent()
  w.call("visitor", first, { agent })
  w.call("visitor", second, { agent })
  w.call("open", second)
  lu.assertEquals({ first.closed, first.alive, second.closed, second.alive },
    { "make room", false, nil, true })
  lu.assertEquals({ agent.closed, agent.alive }, { "closed by policy", false })
  w.call("close", first)
  lu.assertEquals(scene.told(w),
    { "info true true", "info true", "info make room" })
end

-- ---- limits, tags, peek -----------------------------------------------------

cases["limits and tags"] = function(scene)
  local w, verdict, conn, agent = run(scene, [[
    assert(conn:limit { rate_in = 1.2, rate_out = 1 << 20, idle = 0.5 } == true)
    conn:limit { rate_in = false }
    assert(conn:tag("k", 1) == true)
    conn:tag("l", true) conn:tag("m", "x") conn:tag("m") conn:tag("n", 1.0)
    agents[1]:limit { rate_out = 5 }
    assert(conn:peek(2) == true)]])
  lu.assertEquals(verdict, { allow = true })
  lu.assertEquals(conn.limits, { rate_in = 0, rate_out = 1 << 20, idle = 0.5 })
  lu.assertEquals(conn.tags, { k = "1", l = "true", n = "1.0" })
  lu.assertEquals(conn.peek, 2)
  lu.assertEquals(agent.limits, { rate_out = 5 })
  lu.assertEquals(w.logs, {})
end

cases["tags that are refused"] = holds([[
  for i = 1, 8 do assert(conn:tag("t" .. i, i)) end
  assert(conn:tag("t8", "again"))
  local ok, why = conn:tag("t9", 1)
  assert(ok == nil and why == "no space left on device", why)
  ok, why = conn:tag("", 1)
  assert(ok == nil and why == "invalid argument", why)
  assert(conn:tag("t1", ("v"):rep(252)))
  ok, why = conn:tag("t1", ("v"):rep(253))
  assert(ok == nil and why == "invalid argument", why)]])

cases["an unknown limit"] = raises("conn:limit { rate_inn = 5 }",
  "unknown limit 'rate_inn' (did you mean 'rate_in'?)")
cases["an agent is never idle"] = raises("agents[1]:limit { idle = 5 }",
  "unknown limit 'idle'")
cases["a limit that is no number"] = raises("conn:limit { idle = 'x' }",
  "limit idle must be a number or false, not a string")
cases["a limit below zero"] = raises("conn:limit { rate_out = -1 }",
  "limit rate_out is out of range")
cases["a limit that is not a number at all"] = raises(
  "conn:limit { rate_out = 0/0 }", "limit rate_out is out of range")
cases["limits that are no table"] = raises("conn:limit(5)",
  "bad argument #1 to 'limit' (table expected, got number)")
cases["limits of nothing"] = raises("conn.limit(conn)",
  "bad argument #2 to 'limit' (table expected, got no value)")
cases["a tag without a key"] = raises("conn:tag(nil, 5)",
  "bad argument #1 to 'tag' (string expected, got nil)")
cases["peek of no time"] = raises("conn:peek(0)",
  "bad argument #1 to 'peek' (it cannot be 0)")

cases["peek without its hook"] = function(scene)
  local w = scene.load("return { visitor = function(conn) conn:peek(1) end }")
  lu.assertEquals(scene.plain(w.call("visitor", scene.T.conn(), {})).error,
    "policy.lua:1: the policy has no hook 'peek'")
end

cases["peek asked for late"] = function(scene)
  local w = scene.load("return { open = function(conn) conn:peek(1) end, " ..
    "peek = print, visitor = function(conn) relay.sleep(1) conn:peek(3) end }")
  local conn, other = scene.T.conn(), scene.T.conn()
  w.call("visitor", conn, {})
  w.call("visitor", other, {})
  w.advance(1)
  lu.assertEquals({ conn.peek, other.peek }, { 3, 3 })
  w.call("open", conn)
  lu.assertEquals(scene.told(w),
    { "open: policy.lua:1: peek can be asked for in 'visitor' only" })
end

cases["eof is known to peek"] = function(scene)
  local w = scene.load("return { peek = function(conn, bytes) " ..
    "print(#bytes, conn.eof) end }")
  local conn = scene.T.conn()
  w.call("visitor", conn, {})
  w.call("peek", conn, "ab\0c")
  conn.eof = true
  w.call("peek", conn, "")
  lu.assertEquals(scene.told(w), { "info 4 false", "info 0 true" })
end

-- ---- the rest ---------------------------------------------------------------

cases["lists and stats"] = function(scene)
  local w = run(scene, [[
    local stats, n = relay.stats(), 0
    for _ in pairs(stats) do n = n + 1 end
    print(#relay.conns(), #relay.agents(), stats.agents, stats.visitors,
      stats.pairs, n)]])
  lu.assertEquals(scene.told(w), { "info 1 1 1 1 0 14" })
end

cases["log"] = function(scene)
  local w = run(scene, [[relay.log("warn", "n %d %s", 5, "x")
    relay.log("debug", "100%") relay.log("error", { } ~= nil)
    relay.log("info", 5) print("a", nil, 1.0)]])
  lu.assertEquals(scene.told(w), { "warn n 5 x", "debug 100%", "error true",
    "info 5", "info a nil 1.0" })
end
cases["log of no level"] = raises("relay.log('loud', 'x')",
  "bad argument #1 to 'log' (invalid option 'loud')")
cases["log of nothing"] = raises("relay.log('info')",
  "bad argument #2 to 'log' (value expected)")
cases["an unknown function"] = raises("relay.slep(1)",
  "relay has no 'slep' (did you mean 'sleep'?)")
cases["a tail call keeps its line"] = raises("return relay.sleep(-1)",
  "bad argument #1 to 'sleep' (not a number of seconds)")
cases["a time that is no number"] = raises("relay.sleep('x')",
  "bad argument #1 to 'sleep' (number expected, got string)")

cases["shared ports"] = function(scene)
  local w = scene.load([[return { start = function()
      assert(relay.listen { port = 443 })
      relay.listen { port = 443 } relay.listen { port = 80, host = "::1" }
    end,
    visitor = function() print(relay.listen { port = 444 },
      relay.listen { port = 9 }) end }]], { taken = { 9 } })
  lu.assertEquals(w.listens, { { port = 80, host = "::1" }, { port = 443 } })
  w.call("visitor", scene.T.conn(), {})
  lu.assertEquals(scene.told(w), { "info true nil address already in use" })
  lu.assertEquals(#w.listens, 3)
end
cases["listen to nothing"] = raises("relay.listen {}",
  "bad argument #1 to 'listen' (port must be 1 to 65535)")
cases["zero bytes"] = function(scene)
  local conn = scene.T.conn()
  local w = scene.load([[return { visitor = function(conn)
    print("a\0b", "\0") relay.log("info", "c\0d")
    relay.log("info", "%s", "\0e")
    conn:tag("bytes", "\22\3\1\0x")
    print(pcall(conn.tag, conn, "a\0b", 1))
    print(pcall(relay.resolve, "a\0b"))
    print(pcall(function() relay.cidr {}:has("10.0.0.1\0") end)) end }]])
  w.call("visitor", conn, {})
  local told = scene.told(w)
  lu.assertEquals({ told[1], told[2], told[3] },
    { "info a\\0b \\0", "info c\\0d", "info \\0e" })
  lu.assertEquals(conn.tags, { bytes = "\22\3\1\\0x" })
  for i = 4, 6 do
    lu.assertStrContains(told[i], "it holds a zero byte")
  end
end

cases["listen to a part of a port"] = raises("relay.listen { port = 443.5 }",
  "bad argument #1 to 'listen' (port must be 1 to 65535)")
cases["listen on a name"] = raises(
  "relay.listen { port = 443, host = 'relay.example' }",
  "bad argument #1 to 'listen' (host must be a literal address)")
cases["listen on a table"] = raises("relay.listen { port = 443, host = {} }",
  "bad argument #1 to 'listen' (host must be a literal address)")
cases["log what does not fit its format"] = raises(
  "relay.log('info', '%d', {})",
  "bad argument #2 to 'string.format' (number expected, got table)")
cases["log by a format that is none"] = raises("relay.log('info', '%z', 1)",
  "invalid conversion '%z' to 'format'")
cases["listen with an unknown key"] = raises("relay.listen { prot = 5 }",
  "relay.listen: unknown key 'prot' (did you mean 'port'?)")

return cases
