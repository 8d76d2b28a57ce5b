-- SPDX-License-Identifier: MIT
--
-- Sockets of a policy: they do what LuaSocket's do, to the letter, and hold up
-- nobody; and however a hook or a policy ends, no descriptor stays behind.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local sys = h.sys

local T = { limit = 90 }

local run = policy.run

-- ---- as LuaSocket -----------------------------------------------------------

function T.test_as_luasocket()
  local scenario = h.source .. "tests/lua/scenario_socket.lua"
  local plain = h.output_of({ "lua5.4", "-e",
    ("print(dofile(%q))"):format(scenario) })
  local ours = h.tmpdir() .. "/lines"
  run(([[
    local text = loadfile(%q)()
    local file = io.open(%q, "w")
    file:write(text, "\n")
    file:close()]]):format(scenario, ours), { "--script-budget", "2s" })
  lu.assertTrue(select(2, plain:gsub("\n", "\n")) > 250)
  lu.assertEquals(h.read_file(ours), plain)
end

function T.test_it_is_the_only_socket_core()
  run([[
    local socket = require "socket"
    assert(socket == require "socket.core" and relay.tcp == socket.tcp)
    package.loaded.socket, package.loaded["socket.core"] = nil, nil
    assert(require("socket").tcp == relay.tcp)
    for _, name in ipairs { "socket.unix", "socket.serial", "ssl.core",
        "ssl" } do
      local ok, why = pcall(require, name)
      assert(not ok and why:find("would hold up the relay"), why)
    end
    for _, name in ipairs { "udp", "udp4", "udp6" } do
      local ok, why = pcall(socket[name])
      assert(not ok and why:find("no UDP"), why)
    end
    local s = socket.tcp4()
    local ok, why = pcall(s.setfd, s, 0)
    assert(not ok and why:find("only %-1"), why)
    s:setfd(-1)
    assert(s:getfd() == -1)
    assert(require("mime").b64("relay") == "cmVsYXk=")
    assert(require("ltn12") and require("socket.smtp"))
    assert(require("socket.ftp") and require("socket.url"))
  ]])
end

-- ---- waiting ----------------------------------------------------------------

-- A listener of the test that accepts and says nothing until told.
local function listener()
  local one = assert(sys.listen())
  return one, one:port()
end

function T.test_a_wait_holds_up_nobody()
  local silent, port = listener()
  local relay, agent = policy.still_scene(([[return { visitor = function(conn)
    if relay.kv.incr("n") <= 40 then
      local s = relay.tcp()
      assert(s:connect("127.0.0.1", %d))
      local line = assert(s:receive("*l"))
      s:close()
      return line == "yes"
    end
  end }]]):format(port))
  local before = policy.sockets(relay)
  local waiters, served = {}, {}
  for i = 1, 40 do
    waiters[i] = h.connect(agent)
    waiters[i]:send("slow")
    waiters[i]:shutdown()
  end
  for _ = 1, 20 do
    lu.assertEquals(policy.ask(agent, "quick"), "quick")
  end
  for i = 1, 40 do
    served[i] = assert(silent:accept())
  end
  for i = 1, 40 do
    served[i]:send(i % 2 == 0 and "yes\n" or "no\n")
  end
  local answers = { [""] = 0, slow = 0 }
  for i = 1, 40 do
    local text = waiters[i]:recv_all()
    answers[text] = answers[text] + 1
    waiters[i]:close()
  end
  lu.assertEquals(answers, { [""] = 20, slow = 20 })
  for i = 1, 40 do
    served[i]:close()
  end
  silent:close()
  policy.await_sockets(relay, before)
  relay:stop()
end

-- Who waits on a connection that another task closes, and opens again for
-- itself, has nothing of the new one.
function T.test_a_wait_ends_with_its_connection()
  local silent, first = listener()
  local greeting, second = listener()
  local path = policy.write(([[
    local s, got = relay.tcp(), nil
    return { start = function()
      assert(s:connect("127.0.0.1", %d))
      relay.spawn(function() got = table.pack(s:receive("*l")) end)
      relay.sleep(0)
      s:close()
      s:settimeout(0)
      s:connect("127.0.0.1", %d)
      s:settimeout(nil)
      relay.spawn(function() print("new", s:receive("*l")) end)
      while not got do relay.sleep(0.001) end
      print("old", table.unpack(got, 1, 3))
      relay.sleep(0)
      print("the end")
    end }]]):format(first, second))
  local relay = h.start({ name = "relay", h.program("relay"), "0",
    "--script", path })
  local old = assert(silent:accept())
  local new = assert(greeting:accept())
  new:send("hello\n")
  h.wait_until("the script has come to its end", function()
    return relay:log():find("new hello", 1, true) and
      relay:log():find("the end", 1, true)
  end)
  lu.assertStrContains(relay:log(), "old nil closed \n")
  relay:stop()
  for _, one in ipairs({ old, new, silent, greeting }) do
    one:close()
  end
end

function T.test_a_name_with_a_zero_byte()
  run([[
    local socket = require "socket"
    local name = "127.0.0.1\0.example"
    local function refuses(f, ...)
      local ok, why = pcall(f, ...)
      assert(not ok and why:find("it holds a zero byte", 1, true), why)
    end
    local s = relay.tcp()
    refuses(s.connect, s, name, 1)
    refuses(s.connect, s, "127.0.0.1", "1\0")
    refuses(s.bind, s, name, 0)
    refuses(socket.connect, name, 1)
    refuses(socket.dns.toip, name)
    refuses(socket.dns.getaddrinfo, name)
    refuses(relay.resolve, name)
    local set = relay.cidr { "127.0.0.0/8" }
    refuses(set.has, set, name)]])
end

function T.test_where_nothing_may_wait()
  local path = policy.write([[
    local s = relay.tcp()
    print(pcall(s.connect, s, "127.0.0.1", 1))
    s:settimeout(0)
    print(s:connect("127.0.0.1", 1))
    local sorted = {}
    return {
      start = function()
        table.sort({ 2, 1 }, function()
          sorted[1] = select(2, pcall(s.receive, s))
          s:settimeout(nil)
          sorted[2] = select(2, pcall(s.receive, s))
          s:settimeout(0)
        end)
        print(sorted[1], sorted[2])
        relay.sleep(0)
        s:settimeout(nil)
        print("at last")
      end,
      log = function(event)
        if event.msg == "at last" then
          local ok, why = pcall(s.receive, s, "*l")
          return "from log: " .. why
        end
      end }]])
  local result = h.run({ h.program("relay"), "0", "--check", "--script", path })
  lu.assertEquals(result.status, 0, result.stderr)
  lu.assertStrContains(result.stderr,
    "false tcp:connect cannot wait here")
  lu.assertStrContains(result.stderr, "nil timeout\n")
  lu.assertStrContains(result.stderr, "nil tcp:receive cannot wait here")
  lu.assertStrContains(result.stderr,
    "from log: tcp:receive cannot wait here")
end

function T.test_one_waits_for_each_direction()
  run([[
    local socket = require "socket"
    local server = assert(socket.bind("127.0.0.1", 0))
    local client = socket.tcp()
    assert(client:connect(server:getsockname()))
    local served = server:accept()
    local got = {}
    relay.spawn(function() got.line = served:receive() end)
    relay.spawn(function()
      got.receive = select(2, pcall(served.receive, served, "*a"))
      got.select = select(2, pcall(socket.select, { served }, nil, 1))
      got.accept = select(2, pcall(server.accept, server))
    end)
    relay.spawn(function() got.other = server:accept() end)
    relay.spawn(function()
      got.accept = select(2, pcall(server.accept, server))
    end)
    relay.sleep(0.05)
    assert(served:send("not held up\n"))
    assert(client:receive() == "not held up")
    assert(got.receive == "tcp:receive: another hook waits on this socket")
    assert(got.select == "select: another hook waits on one of the sockets")
    assert(got.accept == "tcp:accept: another hook waits on this socket")
    assert(client:send("a line\n"))
    relay.sleep(0.05)
    assert(got.line == "a line" and not got.other)
    client:send("second\n")
    assert(served:receive() == "second")
  ]])
end

function T.test_close_while_waiting()
  run([[
    local socket = require "socket"
    local server = assert(socket.bind("127.0.0.1", 0))
    local client = socket.tcp()
    assert(client:connect(server:getsockname()))
    local served = server:accept()
    local got = {}
    relay.spawn(function()
      got.line = table.pack(served:receive("*l", "pre")) end)
    relay.spawn(function() got.select =
      table.pack(socket.select({ client }, nil, 60)) end)
    relay.spawn(function() got.accept = table.pack(server:accept()) end)
    client:send("fix")
    relay.sleep(0.05)
    served:close() client:close() server:close()
    assert(not got.line and not got.select and not got.accept)
    relay.sleep(0.05)
    assert(got.line[2] == "closed" and got.line[3] == "prefix")
    assert(got.select[1][1] == client and got.select.n == 2)
    assert(got.accept[2] == "closed")
    assert(served:receive() == nil and served:getfd() == -1)
    -- and it is as new
    server = assert(socket.bind("127.0.0.1", 0))
    assert(client:connect(server:getsockname()))
    assert(client:send("x"))
  ]])
end

function T.test_waits_pass_through_what_libraries_do()
  run([[
    local socket = require "socket"
    local server = assert(socket.bind("127.0.0.1", 0, 128))
    local _, port = server:getsockname()
    relay.spawn(function()
      while true do
        local one = server:accept()
        relay.spawn(function()
          local line = one:receive()
          relay.sleep(0.01)
          one:send((line or "nothing") .. "\n")
          one:close()
        end)
      end
    end)
    local function ask(text)
      local c = assert(socket.connect("127.0.0.1", port))
      c:send(text .. "\n")
      local line = c:receive()
      c:close()
      return line
    end
    local ended = 0
    local try = socket.newtry(function() ended = ask("finalizer") end)
    local f = socket.protect(function(text)
      return try(ask(text)), try(nil, ask("why"))
    end)
    local nothing, why = f("first")
    assert(nothing == nil and why == "why", why)
    assert(ended == "finalizer")
    local ok, text = pcall(function() error(ask("raised"), 0) end)
    assert(not ok and text == "raised")
    local each = coroutine.wrap(function()
      for i = 1, 3 do coroutine.yield(ask("item " .. i)) end
    end)
    for i = 1, 3 do assert(each() == "item " .. i) end
    do
      local closing <close> = setmetatable({}, { __close = function()
        ended = ask("closing") end })
    end
    assert(ended == "closing")
    -- a hundred at once
    local count = 0
    for i = 1, 100 do
      relay.spawn(function()
        assert(ask("n" .. i) == "n" .. i)
        count = count + 1
      end)
    end
    for _ = 1, 200 do
      if count < 100 then relay.sleep(0.01) end
    end
    assert(count == 100, count)
  ]])
end

-- ---- bytes ------------------------------------------------------------------

local COUNT = 12 << 20

function T.test_many_bytes_both_ways()
  local one, port = listener()
  local relay = policy.relay(([[return { start = function()
    relay.spawn(function()
      local s = relay.tcp()
      assert(s:connect("127.0.0.1", %d))
      local text = assert(s:receive(%d))
      print("received", #text)
      local count = assert(s:send(text))
      print("sent", math.tointeger(count), s:receive("*a"))
      s:close()
    end) end }]]):format(port, COUNT))
  local peer = assert(one:accept())
  h.pump({ { peer, send = COUNT, send_seed = 3 } })
  relay:wait_log("received " .. COUNT, 30)
  h.pump({ { peer, recv = COUNT, recv_seed = 3, fin = true, eof = true } })
  relay:wait_log("sent " .. COUNT .. " nil closed")
  peer:close()
  one:close()
  relay:stop()
end

-- Far more work than one entry has CPU time for, of a peer that keeps up.
function T.test_many_lines()
  local one, port = listener()
  local relay = policy.relay(([[return { start = function()
    relay.spawn(function()
      local s = relay.tcp()
      assert(s:connect("127.0.0.1", %d))
      local count, size = 0, 0
      while true do
        local line, why = s:receive()
        if not line then print("lines", count, size, why) break end
        count, size = count + 1, size + #line
      end
      s:close()
    end) end }]]):format(port), { "--script-budget", "20ms" })
  local peer = assert(one:accept())
  local block = ("a short line\r\n"):rep(1000)
  for _ = 1, 300 do
    peer:send(block)
  end
  peer:shutdown()
  relay:wait_log("lines 300000 3600000 closed", 30)
  peer:close()
  one:close()
  relay:stop()
end

function T.test_more_than_the_memory()
  local one, port = listener()
  local relay = policy.relay(([[return { start = function()
    relay.spawn(function()
      local s = relay.tcp()
      assert(s:connect("127.0.0.1", %d))
      local ok, why = pcall(s.receive, s, "*a")
      print("received", ok, why)
      s:close()
      print("still here", #("x"):rep(100000))
    end) end }]]):format(port), { "--script-memory", "2000000" })
  local peer = assert(one:accept())
  for _ = 1, 200 do
    if not peer:send(("x"):rep(100000)) then break end
  end
  relay:wait_log("received false not enough memory")
  relay:wait_log("still here 100000")
  peer:close()
  one:close()
  relay:stop()
end

function T.test_reset_by_the_peer()
  local one, port = listener()
  local relay = policy.relay(([[return { start = function()
    relay.spawn(function()
      for _, what in ipairs { "*a", "*l", 100 } do
        local s = relay.tcp()
        assert(s:connect("127.0.0.1", %d))
        s:send("ready\n")
        print("got", what, s:receive(what))
        print("sends", s:send("x"))
        s:close()
      end
      print("all done")
    end) end }]]):format(port))
  for _ = 1, 3 do
    local peer = assert(one:accept())
    lu.assertEquals(peer:recv_line(), "ready")
    peer:reset()
  end
  relay:wait_log("all done")
  for _, what in ipairs({ "*a", "*l", "100" }) do
    relay:wait_log("got " .. what:gsub("%*", "%%*") .. " nil closed")
  end
  lu.assertEquals(policy.count(relay, "sends nil closed 0.0"), 3)
  one:close()
  relay:stop()
end

-- ---- addresses --------------------------------------------------------------

-- A name of two addresses, and somebody at the second alone.
function T.test_all_addresses_are_tried()
  h.need("unshare", "mount")
  local hosts = h.write_file(h.tmpdir() .. "/hosts",
    "127.0.0.7 two.test\n127.0.0.1 two.test\n127.0.0.1 localhost\n")
  local one, port = listener()
  local path = policy.write(([[return { start = function()
    local s = relay.tcp()
    print("connected", s:connect("two.test", %d), s:getpeername())
    print("refused", relay.tcp():connect("two.test", 1))
    local four = require("socket").tcp4()
    print("connected", four:connect("two.test", %d), four:getpeername())
  end }]]):format(port, port))
  local result = h.run({ "unshare", "-m", "sh", "-c",
    'mount --bind "$0" /etc/hosts || exit 77; exec "$@"', hosts,
    h.program("relay"), "0", "--check", "--script", path })
  if result.status == 77 or result.stderr:find("unshare: ", 1, true) then
    h.skip("mounts of one's own are not permitted here")
  end
  lu.assertEquals(result.status, 0, result.stderr)
  lu.assertEquals(select(2, result.stderr:gsub(
    "connected 1.0 127.0.0.1 " .. port, "")), 2, result.stderr)
  lu.assertStrContains(result.stderr, "refused nil connection refused")
  one:close()
end

-- ---- ends -------------------------------------------------------------------

local waiting_hook = [[return { visitor = function(conn)
    local idle = relay.tcp()
    local s <close> = relay.tcp()
    assert(s:connect("127.0.0.1", %d))
    assert(s:send("asked\n"))
    %s
  end }]]

local ways_to_wait = {
  receive = "s:receive()",
  send = "s:send(('x'):rep(20000000))",
  select = "require('socket').select({ s }, nil, 60)",
  coroutine = "coroutine.wrap(function() s:receive('*a') end)()",
  pcall = "pcall(s.receive, s) pcall(s.receive, s) relay.sleep(60)",
}

-- Calls `finish(visitor, relay)` while a hook waits on a socket; the peer must
-- see that end, and no descriptor may stay.
local function end_a_wait(how, finish, options)
  local one, port = listener()
  local relay, agent = policy.still_scene(
    waiting_hook:format(port, ways_to_wait[how]), options)
  local before = policy.sockets(relay)
  local visitor = h.connect(agent)
  local peer = assert(one:accept())
  lu.assertEquals(peer:recv_line(), "asked")
  finish(visitor, relay)
  peer:discard()
  peer:close()
  policy.await_sockets(relay, before)
  visitor:close()
  one:close()
  relay:stop()
end

for how in pairs(ways_to_wait) do
  T["test_the_visitor_leaves_in_" .. how] = function()
    end_a_wait(how, function(visitor)
      visitor:reset()
    end)
  end

  T["test_the_deadline_comes_in_" .. how] = function()
    end_a_wait(how, function(visitor, relay)
      lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
      relay:wait_log("visitor closed [^\n]*reason=hook")
    end, { "--hook-visitor", "200ms", "--script-budget", "2s" })
  end
end

-- What waits on a socket goes with the hook, without <close> and collector.
function T.test_a_killed_hook_takes_its_socket_along()
  local one, port = listener()
  local relay, agent = policy.still_scene(([[
    local s
    return { visitor = function()
      if s then print("found", s:receive()) return end
      s = relay.tcp()
      assert(s:connect("127.0.0.1", %d))
      s:send("asked\n")
      s:receive()
    end }]]):format(port))
  local before = policy.sockets(relay)
  local visitor = h.connect(agent)
  local peer = assert(one:accept())
  lu.assertEquals(peer:recv_line(), "asked")
  visitor:reset()
  lu.assertEquals({ peer:recv_all() }, { "", "eof" })
  peer:close()
  visitor:close()
  policy.await_sockets(relay, before)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  relay:wait_log("found nil closed")
  one:close()
  relay:stop()
end

function T.test_the_end_of_the_relay()
  local one, port = listener()
  local relay = policy.relay(([[
    local kept = {}
    return { start = function()
      for i = 1, 10 do
        kept[i] = relay.tcp()
        relay.spawn(function()
          assert(kept[i]:connect("127.0.0.1", %d))
          if i %% 2 == 0 then kept[i]:receive() end
          error("not reached by half")
        end)
      end
    end }]]):format(port))
  local peers = {}
  for i = 1, 10 do
    peers[i] = assert(one:accept())
  end
  relay:stop()
  for i = 1, 10 do
    lu.assertEquals({ peers[i]:recv_all() }, { "", "eof" })
    peers[i]:close()
  end
  one:close()
end

function T.test_reload_while_sockets_wait()
  local one, port = listener()
  local script = ([[return { visitor = function(conn)
    local s <close> = relay.tcp()
    assert(s:connect("127.0.0.1", %d))
    assert(s:send("%%s\n"))
    return s:receive() == "yes"
  end }]]):format(port)
  local relay, agent = policy.still_scene(script:format("old"))
  local before = policy.sockets(relay)
  local first = h.connect(agent)
  first:send("first")
  first:shutdown()
  local old = assert(one:accept())
  lu.assertEquals(old:recv_line(), "old")
  policy.reload(relay, script:format("new"))
  local second = h.connect(agent)
  second:send("second")
  second:shutdown()
  local new = assert(one:accept())
  lu.assertEquals(new:recv_line(), "new")
  old:send("yes\n")
  lu.assertEquals(first:recv_all(), "first")
  new:send("yes\n")
  lu.assertEquals(second:recv_all(), "second")
  for _, socket in ipairs({ old, new, first, second }) do
    socket:close()
  end
  policy.await_sockets(relay, before)
  one:close()
  relay:stop()
end

-- ---- descriptors ------------------------------------------------------------

function T.test_forgotten_sockets_are_closed()
  local relay = policy.relay([[return { start = function()
    relay.spawn(function()
      local socket = require "socket"
      for i = 1, 3000 do
        assert(socket.tcp4())
        if i % 50 == 0 then relay.sleep(0) end
      end
      collectgarbage()
      print("all had")
    end) end }]])
  relay:wait_log("all had", 30)
  policy.await_sockets(relay, 1)
  relay:stop()
end

function T.test_a_script_cannot_take_all_descriptors()
  local relay, agent = policy.scene([[
    local socket = require "socket"
    local kept = {}
    return { start = function()
      relay.spawn(function()
        local s, why
        repeat
          s, why = socket.tcp4()
          kept[#kept + 1] = s
          if #kept % 20 == 0 then relay.sleep(0) end
        until not s
        print("kept", #kept, why)
        print("connects", relay.tcp():connect("127.0.0.1", 1))
      end) end,
      visitor = function() return true end }]], { nofile = 256 })
  local count, why = relay:wait_log("kept (%d+) ([^\n]+)")
  count = tonumber(count)
  lu.assertTrue(count > 150 and count < 230, count)
  lu.assertStrContains(relay:log(), "Too many open files")
  relay:wait_log("connects nil Too many open files")
  lu.assertNil(why)
  for _ = 1, 5 do
    lu.assertEquals(policy.ask(agent, "hello"), "hello")
  end
  relay:stop()
end

function T.test_a_script_has_a_thousand_sockets_at_most()
  run([[
    local socket = require "socket"
    local kept, s, why = {}
    repeat
      s, why = socket.tcp4()
      kept[#kept + 1] = s
      if #kept % 100 == 0 then relay.sleep(0) end
    until not s
    assert(#kept == 1024 and why == "Too many open files", #kept)
    kept[1]:close()
    assert(socket.tcp4())
  ]], { nofile = 4096 })
end

return T
