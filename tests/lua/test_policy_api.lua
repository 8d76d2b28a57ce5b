-- SPDX-License-Identifier: MIT
--
-- What a script may call: waiting, which holds up nobody; the store; sets of
-- addresses; first bytes; limits, lists, shared ports.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

-- Runs the body in `start`, which must come to its end.
local function run(body)
  local path = policy.write("return { start = function() " .. body ..
    " print('ran to the end') end }")
  local result = h.run({ h.program("relay"), "--check", "--script", path })
  lu.assertEquals(result.status, 0, result.stderr)
  lu.assertStrContains(result.stderr, "info ran to the end\n")
end

-- ---- waiting --------------------------------------------------------------

function T.test_sleep_holds_up_nobody()
  local relay, agent = policy.scene([[return { visitor = function(conn)
    if relay.kv.incr("n") <= 40 then
      relay.sleep(1.5)
      print("it slept")
    end
  end }]])
  local waiters = {}
  for i = 1, 40 do
    waiters[i] = h.connect(agent)
    waiters[i]:send("slow")
    waiters[i]:shutdown()
  end
  for _ = 1, 20 do
    lu.assertEquals(policy.ask(agent, "quick"), "quick")
  end
  lu.assertEquals(policy.count(relay, "it slept"), 0)
  for i = 1, 40 do
    lu.assertEquals(waiters[i]:recv_all(), "slow")
    waiters[i]:close()
  end
  lu.assertEquals(policy.count(relay, "it slept"), 40)
  relay:stop()
end

function T.test_sleep_in_a_coroutine_of_the_script()
  run([[
    local seen = {}
    local co = coroutine.wrap(function()
      relay.sleep(0.01)
      coroutine.yield(1)
      local inner = coroutine.wrap(function()
        relay.sleep(0.01)
        coroutine.yield("in")
        relay.sleep(0.01)
        return "out"
      end)
      seen[#seen + 1] = inner()
      relay.sleep(0.01)
      seen[#seen + 1] = inner()
      coroutine.yield(2)
      error("three")
    end)
    assert(co() == 1)
    assert(co() == 2)
    assert(table.concat(seen, ",") == "in,out")
    local ok, why = pcall(co)
    assert(not ok and why:find("three"))
    local plain = coroutine.create(function(a)
      relay.sleep(0.01)
      local b = coroutine.yield(a + 1)
      return b * 2
    end)
    local one, two = coroutine.resume(plain, 1)
    assert(one == true and two == 2)
    one, two = coroutine.resume(plain, 21)
    assert(one == true and two == 42)
    assert(coroutine.status(plain) == "dead")
    one, two = coroutine.resume(plain)
    assert(one == false and two == "cannot resume dead coroutine")
  ]])
end

function T.test_pcall_around_a_wait()
  run([[
    local ok, why = pcall(function()
      relay.sleep(0.01)
      error("after")
    end)
    assert(not ok and why:find("after"))
    assert(select("#", relay.sleep(0)) == 0)
  ]])
end

function T.test_spawn()
  local relay = policy.relay([[
    return { start = function()
      relay.spawn(function(a, b)
        relay.sleep(0.05)
        print("spawned", a, b)
        relay.spawn(error, "spawned error")
      end, 1, "two")
      print("first")
    end }]])
  relay:wait_log("first.*spawned 1 two")
  relay:wait_log("hook=spawn error=[^\n]*spawned error")
end

function T.test_a_spawn_that_spawns_itself_holds_up_nobody()
  local relay, agent = policy.scene([[
    local n = 0
    local function again()
      n = n + 1
      if n == 100 then print("a hundred") end
      relay.spawn(again)
    end
    return { start = function() again() end }]])
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  relay:wait_log("a hundred")
  relay:stop()
end

function T.test_every()
  local relay = policy.relay([[
    local a, b = 0, 0
    return { start = function()
      relay.every(0.02, function()
        a = a + 1
        relay.sleep(0.01)
        print("a", a)
        if a == 3 then return false end
      end)
      local timer
      timer = relay.every(0.02, function()
        b = b + 1
        print("b", b)
        if b == 2 then timer:stop() end
        if b == 1 then error("in every") end
      end)
    end }]])
  relay:wait_log("a 3")
  relay:wait_log("b 2")
  relay:wait_log("hook=every error=[^\n]*in every")
  sys.sleep(0.1)
  lu.assertEquals(policy.count(relay, "info a "), 3)
  lu.assertEquals(policy.count(relay, "info b "), 2)
end

function T.test_resolve()
  run([[
    local list = assert(relay.resolve("localhost"))
    assert(list[1] == "127.0.0.1" or list[1] == "::1", list[1])
    local none, why = relay.resolve("no.such.name.invalid")
    assert(none == nil and type(why) == "string")
  ]])
end

function T.test_now()
  run([[
    local a = relay.now()
    relay.sleep(0.05)
    local took = relay.now() - a
    assert(took >= 0.04 and took < 1e6, took)
  ]])
end

-- ---- the store ------------------------------------------------------------

function T.test_kv()
  run([[
    local kv = relay.kv
    assert(kv.get("a") == nil)
    assert(kv.set("a", "x\0y") and kv.get("a") == "x\0y")
    assert(kv.set("a", 5) and math.type(kv.get("a")) == "integer")
    assert(kv.set("a", 0.5) and kv.get("a") == 0.5)
    assert(kv.set("a", nil) and kv.get("a") == nil)
    assert(kv.delete("a") == false)
    assert(kv.incr("n") == 1 and kv.incr("n", 5) == 6)
    assert(kv.incr("n", -10) == -4 and kv.incr("n", 0.5) == -3.5)
    assert(kv.delete("n") and kv.get("n") == nil)
    kv.set("t", "gone", 0.03)
    kv.incr("u", 1, 0.03)
    kv.incr("u", 1, 60)
    assert(kv.get("t") == "gone" and kv.get("u") == 2)
    relay.sleep(0.06)
    assert(kv.get("t") == nil and kv.get("u") == nil)
    for i = 1, 1000 do kv.set("k" .. i, ("v"):rep(i)) end
    for i = 1, 1000 do assert(#kv.get("k" .. i) == i) end
    local ok, why = pcall(function()
      local big = ("x"):rep(1 << 20)
      for i = 1, 1000 do kv.set("big" .. i, big) end
    end)
    assert(not ok and why:find("kv is full"), why)
    assert(#kv.get("k7") == 7)
  ]])
end

-- ---- addresses ------------------------------------------------------------

function T.test_cidr()
  run([[
    local set = relay.cidr { "10.0.0.0/8", "192.168.1.7", "192.168.2.0/23",
      "2001:db8::/32", "::1", "172.16.0.0/12", "10.1.0.0/16" }
    for _, ip in ipairs { "10.0.0.0", "10.255.255.255", "192.168.1.7",
        "192.168.3.255", "2001:db8::5", "::1", "::ffff:10.1.2.3",
        "172.31.255.255" } do
      assert(set:has(ip), ip)
    end
    for _, ip in ipairs { "11.0.0.0", "9.255.255.255", "192.168.1.8",
        "192.168.4.0", "2001:db9::", "::2", "172.32.0.0" } do
      assert(not set:has(ip), ip)
    end
    assert(relay.cidr { "0.0.0.0/0" }:has("1.2.3.4"))
    assert(not relay.cidr { "0.0.0.0/0" }:has("2001::1"))
    assert(relay.cidr { "::/0" }:has("1.2.3.4"))
    assert(not relay.cidr {}:has("1.2.3.4"))
    for _, bad in ipairs { "", "x", "10.0.0.0/33", "10.0.0.0/", "1.2.3",
        "::/129", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0.0/ 8" } do
      assert(not pcall(relay.cidr, { bad }), bad)
    end
    assert(not pcall(set.has, set, "not an address"))
  ]])
end

-- ---- first bytes ----------------------------------------------------------

local function hello(name)
  local names = ("\0" .. (">s2"):pack(name))
  local extension = (">s2"):pack((">s2"):pack(names))
  local extensions = (">I2s2"):pack(23, "") .. (">I2"):pack(0) .. extension
  local body = "\3\3" .. ("r"):rep(32) .. (">s1"):pack(("s"):rep(32)) ..
    (">s2"):pack("\x13\x01") .. (">s1"):pack("\0") ..
    (">s2"):pack(extensions)
  local message = "\1" .. (">I3"):pack(#body) .. body
  return "\x16\3\1" .. (">s2"):pack(message)
end

function T.test_peekers()
  local bytes = hello("WWW.Example.com")
  run(([[
    local bytes = %q
    assert(relay.sni(bytes) == "www.example.com")
    for i = 0, #bytes - 1 do
      local name, need = relay.sni(bytes:sub(1, i))
      assert(name == false and need > i and need <= #bytes, i)
    end
    for i = 1, #bytes do
      for _, c in ipairs { "\0", "\255", "\127" } do
        relay.sni(bytes:sub(1, i - 1) .. c .. bytes:sub(i + 1))
      end
    end
    assert(relay.sni("GET / HTTP/1.1\r\n") == nil)
    local get = "GET / HTTP/1.1\r\nA: b\r\nhOST:  Example.com:80 \r\n\r\n"
    assert(relay.http_host(get) == "example.com")
    assert(relay.http_host("GET / HTTP/1.1\nHost: [::1]:8\n") == "[::1]")
    assert(relay.http_host("GET / HTTP/1.1\r\n\r\n") == nil)
    assert(relay.http_host("GET / HTTP/1.1\r\nHost:\r\n") == nil)
    assert(relay.http_host("get / HTTP/1.1\r\nHost: x\r\n") == nil)
    for i = 0, #get - 10 do
      local host, need = relay.http_host(get:sub(1, i))
      assert(host == false and need == i + 1, i)
    end
    assert(relay.ssh("SSH-2.0-OpenSSH_9.2p1 Debian\r\nx") ==
      "OpenSSH_9.2p1 Debian")
    assert(relay.ssh("SSH-1.0-x\r\n") == nil and relay.ssh("GET") == nil)
    assert(relay.ssh("SSH-2") == false)
    assert(select(2, relay.ssh("SSH-2.0-x")) == 10)
  ]]):format(bytes))
end

-- ---- conns and agents -----------------------------------------------------

function T.test_lists_and_stats()
  local relay, agent = policy.scene([[return {
    open = function(conn)
      local conns, agents = relay.conns(), relay.agents()
      local stats = relay.stats()
      print("lists", #conns, conns[1] == conn, #agents,
        agents[1] == conn.agent, stats.visitors, stats.agents,
        agents[1].conns, agents[1].ports[1], agents[1].since >= 0)
    end }]])
  lu.assertEquals(policy.ask(agent, "x"), "x")
  relay:wait_log("lists 1 true 1 true 1 1 1 " .. agent.port .. " true")
end

function T.test_close_of_another()
  local relay, agent = policy.scene([[
    local first
    return {
      open = function(conn)
        if first then
          print("closing", first:close("make room"), first.alive)
        end
        first = conn
      end,
      close = function(conn) print("end", conn.reason) end }]])
  local one = h.connect(agent)
  one:send("x")
  lu.assertEquals(one:recv_exact(1), "x")
  local two = h.connect(agent)
  two:send("x")
  lu.assertEquals(two:recv_exact(1), "x")
  lu.assertEquals({ one:recv_all() }, { "", "reset" })
  relay:wait_log("closing true false")
  relay:wait_log("end make room")
  one:close()
  two:close()
end

function T.test_limit()
  local _, agent = policy.scene([[return { visitor = function(conn)
    assert(conn:limit { rate_in = 100000, idle = 1 })
  end }]])
  local began = sys.now()
  h.echo(agent, 40000)
  lu.assertTrue(sys.now() - began > 0.15, sys.now() - began)
  local visitor = h.connect(agent)
  visitor:send("x")
  visitor:recv_exact(1)
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  visitor:close()
end

function T.test_agent_close()
  local relay = policy.relay([[return { start = function()
    relay.spawn(function()
      repeat relay.sleep(0.02) until #relay.agents() > 0
      relay.sleep(0.1)
      print("closed", relay.agents()[1]:close("enough"))
    end) end,
    agent_gone = function(agent, why) print("gone", why) end }]])
  local agent = h.start_echoserver(relay, { expect = "any" })
  relay:wait_log("closed true")
  relay:wait_log("gone denied")
  agent:wait()
end

function T.test_shared_port_and_routing()
  local port = real.free_port()
  local relay = policy.relay(([[return {
    start = function() relay.listen { port = %d } end,
    allocate = function() return { port = %d, share = true } end,
    visitor = function(conn, agents)
      conn:peek(2)
      conn.data = agents
    end,
    peek = function(conn, bytes)
      for _, agent in ipairs(conn.data) do
        if bytes:find(agent.name, 1, true) then return agent end
      end
      return false, "nobody's"
    end }]]):format(port, port))
  local one = sys.listen()
  local two = sys.listen()
  h.start_expose(relay, one, { "--name", "one" })
  h.start_expose(relay, two, { "--name", "two" })
  for _ = 1, 3 do
    for name, listener in pairs({ one = one, two = two }) do
      local visitor = h.connect(port)
      visitor:send("to " .. name)
      local served = assert(listener:accept())
      lu.assertEquals(served:recv_exact(6), "to " .. name)
      served:close()
      visitor:close()
    end
  end
  local visitor = h.connect(port)
  visitor:send("to nobody")
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  visitor:close()
  one:close()
  two:close()
end

-- To ask for a port that is declared is not enough, also where nobody has it.
function T.test_a_shared_port_is_given()
  local port = real.free_port()
  local relay = policy.relay(([[return {
    start = function() relay.listen { port = %d } end,
    allocate = function(agent)
      if agent.name == "web" then return %d end
    end }]]):format(port, port))
  local wish = { words = "name=thief port=" .. port, refused = true }
  lu.assertEquals(typed.agent(relay, wish).err.code, "port-taken")
  local agent = typed.agent(relay, { words = "name=web" })
  lu.assertEquals(agent.ok.port, tostring(port))
  lu.assertEquals(typed.agent(relay, wish).err.code, "port-taken")
  lu.assertNotEquals(typed.agent(relay).ok.port, tostring(port))
end

function T.test_listen_on_a_taken_port()
  local listener = assert(sys.listen({ host = "::" }))
  local path = policy.write(
    ("return { start = function() relay.listen { port = %d } end }"):format(
      listener:port()))
  local result = h.run({ h.program("relay"), "0", "--script", path })
  lu.assertEquals(result.status, 1)
  lu.assertStrContains(result.stderr, "address already in use")
  listener:close()
end

return T
