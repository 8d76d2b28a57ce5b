-- SPDX-License-Identifier: MIT
--
-- A relayed connection is exact: what one end sends the other gets, whatever
-- its size, its segments and its urgent bytes, and whoever speaks first.
-- Through `relay` and `expose`, in every mode, with and without connections
-- kept ahead of need.

local lu = require("luaunit")
local h = require("harness")
local scene = require("scene")
local sys = h.sys

local T = { limit = 120 }

local MIB <const> = 1 << 20

-- ---- many bytes -------------------------------------------------------------

scene.each(T, "test_both_ways_at_once", {}, function(s)
  for round = 1, 4 do
    local visitor, served = s:join()
    h.exchange(visitor, served, round * MIB + round)
  end
end)

scene.each(T, "test_a_gibibyte", { pools = { 2 } }, function(s)
  local visitor, served = s:join()
  h.pump({
    { visitor, send = 1024 * MIB, send_seed = 1, fin = true, eof = true },
    { served, recv = 1024 * MIB, recv_seed = 1, fin = true, eof = true },
    timeout = 90,
  })
end)

-- ---- small segments ---------------------------------------------------------

scene.each(T, "test_a_million_one_byte_segments", { pools = { 2 } },
  function(s)
    local visitor, served = s:join({ nodelay = true })
    h.pump({
      { visitor, send = 1000000, send_seed = 1, chunk = 1, fin = true,
        eof = true },
      { served, recv = 1000000, recv_seed = 1, eof = true, fin = true },
      timeout = 90,
    })
  end)

-- A pipe has few slots, and each segment may take one: full of single bytes it
-- must make the programs wait, not look again and again.
scene.each(T, "test_one_byte_segments_against_a_stalled_reader",
  { pools = { 0 }, variants = scene.both_sides,
    relay = { "--rcvbuf", 65536 }, listen = { rcvbuf = 65536 } },
  function(s, who)
    local sender, reader = s:join_from(who,
      { nodelay = true, sndbuf = 65536, rcvbuf = 65536 })
    sender:set({ sndbuf = 65536, nodelay = true })
    local sent = scene.fill(sender, 1, 1)
    s:expect_no_spin()
    sender:shutdown()
    scene.take(reader, 1, sent, 50000)
    scene.expect_eof(reader)
  end)

-- Each byte is awaited before the next is sent: nothing may be held back until
-- there is more of it.
scene.each(T, "test_single_bytes_back_and_forth", {}, function(s)
  local visitor, served = s:join({ nodelay = true })
  for i = 1, 200 do
    local byte = string.char(i)
    visitor:send(byte)
    lu.assertEquals(served:recv(nil, 100), byte)
    served:send(byte)
    lu.assertEquals(visitor:recv(nil, 100), byte)
  end
end)

-- ---- who speaks first -------------------------------------------------------

scene.each(T, "test_the_service_speaks_first", {}, function(s)
  local visitor, served = s:join()
  served:send("220 ready\r\n")
  lu.assertEquals(visitor:recv_line(), "220 ready\r")
  visitor:send("QUIT\r\n")
  lu.assertEquals(served:recv_line(), "QUIT\r")
end)

-- The agent stands still when the visitor comes: all it says waits for it.
scene.each(T, "test_the_visitor_speaks_before_it_is_joined", {}, function(s)
  s.agent:kill("STOP")
  local visitor = s:visit()
  visitor:send(sys.pattern(1, 0, 60000))
  visitor:shutdown()
  scene.await_sent(visitor)
  s.agent:kill("CONT")
  local served = s:keep(assert(s.listener:accept()))
  scene.take(served, 1, 60000, 60000)
  scene.expect_eof(served)
  served:send("all there")
  served:shutdown()
  lu.assertEquals({ visitor:recv_all() }, { "all there", "eof" })
end)

-- ---- urgent bytes -----------------------------------------------------------

-- In line, wherever it is, and what follows is not held up by it.
scene.each(T, "test_urgent_bytes_stay_in_line",
  { variants = scene.both_sides },
  function(s, who)
    for _, before in ipairs({ "", "a", sys.pattern(1, 0, 3000) }) do
      for _, after in ipairs({ "", "b", sys.pattern(2, 0, 70000) }) do
        local sender, reader = s:join_from(who)
        if before ~= "" then
          sender:send(before)
        end
        sender:send("!", nil, "oob")
        if after ~= "" then
          sender:send(after)
        end
        local all = before .. "!" .. after
        lu.assertTrue(reader:recv_exact(#all) == all)
        sender:send("later")
        lu.assertEquals(reader:recv_exact(5), "later")
        sender:shutdown()
        scene.expect_eof(reader)
        reader:close()
        scene.expect_eof(sender)
        sender:close()
      end
    end
  end)

scene.each(T, "test_urgent_byte_at_the_very_end",
  { variants = scene.both_sides },
  function(s, who)
    local sender, reader = s:join_from(who)
    sender:send("data")
    sender:send("!", nil, "oob")
    sender:shutdown()
    lu.assertEquals({ reader:recv_all() }, { "data!", "eof" })
    reader:send("answer")
    reader:shutdown()
    lu.assertEquals({ sender:recv_all() }, { "answer", "eof" })
  end)

-- The programs have one in front of them that they cannot pass on: no spin.
scene.each(T, "test_urgent_byte_against_a_stalled_reader",
  { pools = { 0 }, variants = scene.both_sides,
    relay = { "--rcvbuf", 65536 }, listen = { rcvbuf = 65536 } },
  function(s, who)
    local sender, reader = s:join_from(who, { rcvbuf = 65536 })
    local sent = scene.fill_program(sender, 1)
    assert(sender:send("!", nil, "oob"))
    assert(sender:send("after"))
    scene.await_sent(sender)
    s:expect_no_spin()
    scene.take(reader, 1, sent, 10000)
    lu.assertEquals(reader:recv_exact(6), "!after")
    s:expect_no_spin()
    sender:send("later")
    lu.assertEquals(reader:recv_exact(5), "later")
  end)

-- The urgent byte is delivered and nothing follows.
scene.each(T, "test_no_spin_after_an_urgent_byte",
  { pools = { 2 }, variants = scene.both_sides },
  function(s, who)
    local sender, reader = s:join_from(who)
    sender:send("ab")
    sender:send("!", nil, "oob")
    lu.assertEquals(reader:recv_exact(3), "ab!")
    s:expect_no_spin()
    sender:send("c")
    lu.assertEquals(reader:recv_exact(1), "c")
  end)

-- ---- the echo ---------------------------------------------------------------

local function with_echo(test)
  for _, pool in ipairs({ 0, 2 }) do
    local relay = h.start_relay()
    test(h.start_echoserver(relay, { "--pool", pool }))
  end
end

h.each_mode(T, "test_echo_of_many_bytes", function()
  with_echo(function(echo)
    h.echo(echo, 16 * MIB + 1)
    h.echo(echo, 0)
    h.echo(echo, 1)
  end)
end)

h.each_mode(T, "test_echo_of_many_visitors", function()
  with_echo(function(echo)
    local ends = {}
    for i = 1, 100 do
      table.insert(ends, { h.connect(echo), send = 100000 + i,
        recv = 100000 + i, fin = true, eof = true })
    end
    h.pump(ends)
    for _, one in ipairs(ends) do
      one[1]:close()
    end
  end)
end)

h.each_mode(T, "test_echo_of_an_urgent_byte", function()
  with_echo(function(echo)
    local visitor = h.connect(echo)
    visitor:send("ab")
    visitor:send("!", nil, "oob")
    visitor:send("cd")
    visitor:shutdown()
    lu.assertEquals({ visitor:recv_all() }, { "ab!cd", "eof" })
    visitor:close()
  end)
end)

return T
