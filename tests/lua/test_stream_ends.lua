-- SPDX-License-Identifier: MIT
--
-- How a relayed connection ends: FIN for FIN after the last byte, reset for
-- reset, and nothing that is silently short.

local lu = require("luaunit")
local h = require("harness")
local scene = require("scene")
local sys = h.sys

local T = {}

local MIB <const> = 1 << 20

-- ---- half-close -------------------------------------------------------------

scene.each(T, "test_one_ends_and_the_other_goes_on",
  { variants = scene.both_sides },
  function(s, who)
    local first, last = s:join_from(who)
    first:send("request")
    first:shutdown()
    lu.assertEquals({ last:recv_all() }, { "request", "eof" })
    h.pump({
      { last, send = MIB, send_seed = 1, fin = true },
      { first, recv = MIB, recv_seed = 1, eof = true },
    })
  end)

scene.each(T, "test_an_end_without_a_byte", { variants = scene.both_sides },
  function(s, who)
    local first, last = s:join_from(who)
    first:shutdown()
    scene.expect_eof(last)
    last:send("x")
    last:shutdown()
    lu.assertEquals({ first:recv_all() }, { "x", "eof" })
  end)

-- The reader starts when the FIN has long been sent, and reads little by
-- little: every byte comes before it.
scene.each(T, "test_fin_comes_after_what_is_held",
  { variants = scene.both_sides, relay = { "--rcvbuf", 131072 },
    listen = { rcvbuf = 131072, sndbuf = 131072 } },
  function(s, who)
    local sender, reader = s:join_from(who,
      { sndbuf = 131072, rcvbuf = 131072 })
    local sent = scene.fill(sender, 3)
    sender:shutdown()
    lu.assertTrue(sent > 300000)
    scene.take(reader, 3, sent, 7000)
    scene.expect_eof(reader)
    reader:send("got it")
    reader:shutdown()
    lu.assertEquals({ sender:recv_all() }, { "got it", "eof" })
  end)

-- ---- resets -----------------------------------------------------------------

scene.each(T, "test_reset", { variants = scene.both_sides }, function(s, who)
  local first, last = s:join_from(who)
  first:send("x")
  lu.assertEquals(last:recv(), "x")
  first:reset()
  scene.expect_reset(last)
end)

scene.each(T, "test_reset_before_any_byte", { variants = scene.both_sides },
  function(s, who)
    local first, last = s:join_from(who)
    first:reset()
    scene.expect_reset(last)
  end)

-- After its FIN an end still counts: its reset is passed on.
scene.each(T, "test_reset_after_its_own_fin", { variants = scene.both_sides },
  function(s, who)
    local first, last = s:join_from(who)
    first:shutdown()
    scene.expect_eof(last)
    last:send("x")
    lu.assertEquals(first:recv(), "x")
    first:reset()
    scene.expect_reset_of_sender(last)
  end)

scene.each(T, "test_reset_after_the_others_fin",
  { variants = scene.both_sides },
  function(s, who)
    local first, last = s:join_from(who)
    last:shutdown()
    scene.expect_eof(first)
    first:reset()
    scene.expect_reset(last)
  end)

-- What reached the relay before the reset is delivered before it.
scene.each(T, "test_data_then_reset", { variants = scene.both_sides },
  function(s, who)
    local first, last = s:joined_from(who)
    first:send(sys.pattern(1, 0, 100000))
    scene.await_sent(first)
    first:reset()
    scene.take(last, 1, 100000, 100000)
    scene.expect_reset(last)
  end)

-- Even before the two are joined: a service that refuses with a word.
scene.each(T, "test_a_word_then_reset_from_the_service", {}, function(s)
  for _ = 1, 10 do
    local visitor = s:visit()
    local served = assert(s.listener:accept())
    served:send("go away")
    scene.await_sent(served)
    served:reset()
    lu.assertEquals({ visitor:recv_all() }, { "go away", "reset" })
    visitor:close()
  end
end)

-- The same with a reader that has no room until the reset is long sent.
scene.each(T, "test_data_then_reset_to_a_slow_reader",
  { variants = scene.both_sides, listen = { rcvbuf = 32768 } },
  function(s, who)
    local first, last = s:joined_from(who, { rcvbuf = 32768 })
    first:send(sys.pattern(1, 0, 500000))
    scene.await_sent(first)
    first:reset()
    lu.assertTrue(last:wait("r"))
    scene.take(last, 1, 500000, 5000)
    scene.expect_reset(last)
  end)

-- The reader sends as well: its own bytes, which meet the reset first, must
-- not cost those on their way to it.
scene.each(T, "test_data_then_reset_to_one_that_sends",
  { pools = { 2 }, variants = scene.both_sides },
  function(s, who)
    for _ = 1, 2 do
      local first, last = s:joined_from(who)
      scene.fill(last, 2)
      first:send(sys.pattern(1, 0, 100000))
      scene.await_sent(first)
      first:reset()
      local got, how = last:recv_all()
      lu.assertEquals(how, "reset")
      lu.assertTrue(got == sys.pattern(1, 0, #got))
      lu.assertEquals(#got, 100000)
      last:close()
    end
  end)

-- An urgent byte hides what lies behind it; the reset is found all the same.
scene.each(T, "test_urgent_byte_then_reset", { variants = scene.both_sides },
  function(s, who)
    local first, last = s:joined_from(who)
    first:send("data")
    first:send("!", nil, "oob")
    scene.await_sent(first)
    first:reset()
    lu.assertEquals({ last:recv_all() }, { "data!", "reset" })
  end)

-- The whole of a stream that is cut is never mistaken for its end.
scene.each(T, "test_reset_in_full_flight", { variants = scene.both_sides },
  function(s, who)
    local first, last = s:joined_from(who)
    local sent = scene.fill(first, 1)
    first:reset()
    local got, how = last:recv_all()
    lu.assertEquals(how, "reset")
    lu.assertTrue(#got <= sent)
    lu.assertTrue(got == sys.pattern(1, 0, #got))
  end)

-- ---- both at once -----------------------------------------------------------

scene.each(T, "test_simultaneous_fins", {}, function(s)
  for i = 1, 50 do
    local visitor, served = s:join()
    if i % 2 == 0 then
      visitor:shutdown()
      served:shutdown()
    else
      served:shutdown()
      visitor:shutdown()
    end
    scene.expect_eof(visitor)
    scene.expect_eof(served)
    visitor:close()
    served:close()
  end
end)

scene.each(T, "test_fin_against_reset", { variants = scene.both_sides },
  function(s, who)
    for i = 1, 20 do
      local first, last = s:join_from(who)
      if i % 2 == 0 then
        last:shutdown()
        first:reset()
      else
        first:send("x")
        last:shutdown()
        first:reset()
      end
      lu.assertEquals(select(2, last:recv_all()), "reset")
      last:close()
    end
  end)

-- ---- half-closed for ever ---------------------------------------------------

-- Each program in turn has the short time-out.
local function short(which)
  return { pools = { 0 }, variants = scene.both_sides,
    relay = { "--fin-timeout", which == "relay" and "1s" or "10m" },
    expose = { "--fin-timeout", which == "expose" and "1s" or "10m" } }
end

for _, which in ipairs({ "relay", "expose" }) do
  scene.each(T, "test_half_closed_and_silent_at_" .. which, short(which),
    function(s, who)
      local first, last = s:join_from(who)
      first:send("request")
      first:shutdown()
      lu.assertEquals({ last:recv_all() }, { "request", "eof" })
      scene.expect_reset(first)
      scene.expect_reset_of_sender(last)
      s.relay:wait_log("visitor closed.*reason=" ..
        (which == "relay" and "ETIMEDOUT" or "ECONN%u+"))
    end)
end

-- It is silence that ends it, not its age.
scene.each(T, "test_half_closed_and_busy",
  { pools = { 2 }, relay = { "--fin-timeout", "2s" },
    expose = { "--fin-timeout", "2s" } },
  function(s)
    local visitor, served = s:join()
    visitor:shutdown()
    scene.expect_eof(served)
    local began = sys.now()
    repeat
      served:send("tick")
      lu.assertEquals(visitor:recv_exact(4), "tick")
      sys.sleep(0.1)
    until sys.now() - began > 2.5
    served:shutdown()
    scene.expect_eof(visitor)
  end)

-- A reader that is slow is not one that is silent.
scene.each(T, "test_half_closed_and_stalled",
  { pools = { 0 }, relay = { "--fin-timeout", "1s" },
    expose = { "--fin-timeout", "1s" } },
  function(s)
    local visitor, served = s:join()
    visitor:shutdown()
    scene.expect_eof(served)
    local sent = scene.fill(served, 1)
    served:shutdown()
    sys.sleep(1.5)
    scene.take(visitor, 1, sent, 65536)
    scene.expect_eof(visitor)
  end)

return T
