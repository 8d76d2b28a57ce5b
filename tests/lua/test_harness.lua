-- SPDX-License-Identifier: MIT
--
-- The harness itself: sockets, processes and the pump against plain tools, and
-- that it notices what it is there to notice.

local lu = require("luaunit")
local h = require("harness")
local real = require("real")
local sys = h.sys

local T = { limit = 30 }

local function sockets(options)
  local listener = sys.listen(options)
  local left = h.connect(listener:port(),
    { host = options and options.host or "127.0.0.1" })
  local right = assert(listener:accept())
  listener:close()
  return left, right
end

-- ---- sockets ---------------------------------------------------------------

function T.test_bytes_lines_and_end()
  local left, right = sockets()
  left:send("one\ntwo")
  lu.assertEquals(right:recv_line(), "one")
  lu.assertEquals(right:recv_exact(3), "two")
  left:send("rest")
  left:shutdown()
  lu.assertEquals({ right:recv_all() }, { "rest", "eof" })
  lu.assertEquals({ right:recv(0.05) }, { nil, "eof" })
  right:send("still open this way")
  right:close()
  lu.assertEquals({ left:recv_all() }, { "still open this way", "eof" })
end

function T.test_reset_and_timeout_are_told_apart()
  local left, right = sockets()
  lu.assertEquals({ left:recv(0.05) }, { nil, "timeout" })
  local before = sys.now()
  lu.assertEquals({ left:recv_exact(5, 0.1) }, { nil, "timeout", "" })
  lu.assertTrue(sys.now() - before >= 0.09)
  right:send("abc")
  lu.assertEquals({ left:recv_exact(5, 0.1) }, { nil, "timeout", "abc" })
  right:reset()
  lu.assertEquals({ left:recv(1) }, { nil, "reset" })
  lu.assertEquals(select(2, left:send("x")), "reset")
end

-- Told to who sends, it is told to who reads after that too.
function T.test_a_reset_is_told_more_than_once()
  for _, name in ipairs({ "send", "try_send" }) do
    local left, right = sockets()
    right:send("abc")
    lu.assertEquals(left:recv_exact(3), "abc")
    right:reset()
    lu.assertEquals({ left[name](left, "x") }, name == "send" and
      { nil, "reset", 0 } or { nil, "reset" })
    lu.assertEquals({ left:recv() }, { nil, "reset" })
    lu.assertEquals({ left:recv_all() }, { "", "reset" })
  end
end

function T.test_refused_and_unreachable()
  local port = real.free_port()
  lu.assertEquals({ sys.connect("127.0.0.1", port) }, { nil, "ECONNREFUSED" })
  lu.assertEquals({ sys.connect("unix", "/nowhere/x") }, { nil, "ENOENT" })
end

function T.test_a_taken_port()
  local listener = sys.listen()
  lu.assertEquals({ sys.listen({ port = listener:port() }) },
    { nil, "EADDRINUSE" })
end

function T.test_ipv6_and_unix()
  local left, right = sockets({ host = "::1" })
  lu.assertEquals((left:peer()), "::1")
  lu.assertEquals({ left:address() }, { right:peer() })
  h.exchange(left, right, 100000)
  local path = h.tmpdir() .. "/socket"
  local listener = sys.listen({ unix = path })
  local a = assert(sys.connect("unix", path))
  h.exchange(a, assert(listener:accept()), 100000)
end

function T.test_from_an_address_of_choice()
  local listener = sys.listen({ host = "0.0.0.0" })
  local left = h.connect(listener:port(), { from = "127.0.0.9" })
  lu.assertEquals((left:address()), "127.0.0.9")
  lu.assertEquals((assert(listener:accept()):peer()), "127.0.0.9")
end

function T.test_urgent_byte_and_queues()
  local left, right = sockets()
  right:set({ oobinline = true })
  left:send("ab")
  left:send("!", 1, "oob")
  left:send("cd")
  h.wait_until("all is acknowledged", function()
    return left:outq() == 0
  end)
  lu.assertEquals(right:inq() >= 2, true)
  lu.assertEquals(right:recv_exact(5), "ab!cd")
end

function T.test_a_full_socket_takes_no_more()
  local left, right = sockets()
  left:set({ sndbuf = 8192 })
  local block = ("x"):rep(65536)
  local result, why = left:send(block:rep(200), 0.2)
  lu.assertEquals({ result, why }, { nil, "timeout" })
  lu.assertEquals(left:try_send(block), 0)
  lu.assertFalse(left:wait("w", 0.05))
  right:close()
end

function T.test_poll_tells_the_ready_ones()
  local left, right = sockets()
  local other, far = sockets()
  lu.assertEquals(#sys.poll({ left, other }, "r", 0.05), 0)
  far:send("x")
  local ready = sys.poll({ left, other }, "r", 1)
  lu.assertEquals(#ready, 1)
  lu.assertIs(ready[1], other)
  lu.assertEquals(#sys.poll({ left, right }, "w", 1), 2)
end

-- ---- the pump --------------------------------------------------------------

function T.test_pump_many_both_ways()
  local ends = {}
  for i = 1, 200 do
    local left, right = sockets()
    table.insert(ends, { left, send = 65536, send_seed = i, recv = 50000,
      recv_seed = 1000 + i, fin = true, eof = true })
    table.insert(ends, { right, send = 50000, send_seed = 1000 + i,
      recv = 65536, recv_seed = i, fin = true, eof = true })
  end
  local result = h.pump(ends)
  lu.assertEquals(result.received, 200 * (65536 + 50000))
end

function T.test_pump_one_byte_at_a_time()
  local left, right = sockets()
  left:set({ nodelay = true })
  h.pump({ { left, send = 5000, chunk = 1, fin = true },
           { right, recv = 5000, recv_seed = 1, eof = true } })
end

function T.test_pump_finds_what_is_wrong()
  local function result_of(send, recv)
    local left, right = sockets()
    left:send(send)
    left:shutdown()
    recv[1], recv.recv_seed = right, 7
    return sys.pump({ recv, timeout = 0.2 })
  end
  local good = sys.pattern(7, 0, 1000)
  local bad = good:sub(1, 500) .. "?" .. good:sub(502)
  if bad == good then
    bad = good:sub(1, 500) .. "!" .. good:sub(502)
  end
  local result = result_of(bad, { recv = 1000 })
  lu.assertEquals({ result.failure, result.at }, { "mismatch", 500 })
  result = result_of(good, { recv = 1001, eof = true })
  lu.assertEquals({ result.failure, result.at }, { "eof", 1000 })
  result = result_of(good, { recv = 999, eof = true })
  lu.assertEquals(result.failure, "extra")
  result = result_of(good, { recv = "any" })
  lu.assertEquals({ result.failure, result[1].received }, { nil, 1000 })
  local left, right = sockets()
  result = sys.pump({ { left, recv = 1 }, timeout = 0.1 })
  lu.assertEquals(result.failure, "timeout")
  right:close()
end

function T.test_pump_hears_a_reset()
  local left, right = sockets()
  right:reset()
  local result = sys.pump({ { left, send = 1 << 20, recv = 10 }, timeout = 5 })
  lu.assertEquals(result.failure, "reset")
end

function T.test_pattern_is_the_same_at_any_offset()
  local whole = sys.pattern(3, 0, 4096)
  for _, at in ipairs({ 1, 7, 8, 13, 1000, 4000 }) do
    lu.assertEquals(sys.pattern(3, at, 96), whole:sub(at + 1, at + 96))
  end
  lu.assertNotEquals(sys.pattern(4, 0, 64), whole:sub(1, 64))
end

-- ---- processes -------------------------------------------------------------

function T.test_lines_output_and_status()
  local shell = h.start({ "sh", "-c",
    "echo one; echo oops >&2; read x; echo got $x; exit 3", stdin = "pipe" })
  lu.assertEquals(shell:read_line(), "one")
  lu.assertEquals({ shell:read_line(0.05) }, { nil, "timeout" })
  lu.assertTrue(shell:running())
  shell:write("two\n")
  lu.assertEquals(shell:wait_line("^got (.*)$"), "two")
  lu.assertEquals({ shell:wait() }, { "exit", 3 })
  lu.assertEquals({ shell:read_line() }, { nil, "eof" })
  lu.assertEquals(shell:log(), "oops\n")
end

function T.test_killing_and_waiting()
  local sleeper = h.start({ "sleep", "1000" })
  lu.assertEquals({ sleeper.handle:wait(0.05) }, { nil, "timeout" })
  lu.assertEquals(sleeper:fds(), 3)
  lu.assertTrue(sleeper:usage().rss > 0)
  sleeper:kill("KILL")
  lu.assertEquals({ sleeper:wait() }, { "signal", 9 })
end

function T.test_environment_user_and_limits()
  local result = h.run({ "sh", "-c", "echo $A$B; ulimit -n; pwd",
    env = { A = "a", B = 5, HOME = false }, nofile = 77, cwd = "/" })
  lu.assertEquals(result.stdout, "a5\n77\n/\n")
  if sys.uid() == 0 then
    lu.assertEquals(h.output_of({ "id", "-un", user = "nobody" }), "nobody\n")
  end
  lu.assertErrorMsgContains("ENOENT", h.start, { "/no/such/program" })
end

function T.test_run_takes_input_and_has_an_end()
  lu.assertEquals(h.run({ "cat", input = "text" }).stdout, "text")
  local long = ("0123456789"):rep(100000)
  lu.assertEquals(h.output_of({ "cat", input = long }), long)
  lu.assertTrue(h.run({ "sleep", "1000", seconds = 0.1 / h.slow }).timeout)
  lu.assertErrorMsgContains("ended with 1", h.output_of, { "false" })
end

function T.test_a_real_tool_over_loopback()
  h.need("nc")
  local listener = sys.listen()
  local nc = h.start({ "nc", "-N", "127.0.0.1", listener:port(),
    stdin = "pipe" })
  local socket = assert(listener:accept())
  nc:write("hello\n")
  nc:close_stdin()
  lu.assertEquals({ socket:recv_all() }, { "hello\n", "eof" })
  socket:send("bye\n")
  socket:close()
  lu.assertEquals(nc:wait_line("."), "b")
  lu.assertEquals({ nc:wait() }, { "exit", 0 })
end

-- ---- what it must notice ---------------------------------------------------

-- Runs a little test of its own between setup and teardown.
local function verdict_of(test)
  h.setup()
  local kept = { test() }
  local problems = h.teardown()
  for _, socket in ipairs(kept) do
    socket:close()
  end
  h.setup()
  return problems
end

function T.test_notices_a_bad_end()
  lu.assertStrContains(verdict_of(function()
    h.start({ "sh", "-c", "exit 5", expect = 0 }).handle:wait()
  end), "exit 5, expected 0")
  lu.assertStrContains(verdict_of(function()
    h.start({ "true", expect = 0 }).handle:wait()
  end), "ended by itself")
  lu.assertNil(verdict_of(function()
    h.start({ "true" })
  end))
end

function T.test_notices_a_report_of_a_sanitizer()
  lu.assertStrContains(verdict_of(function()
    h.start({ "sh", "-c", "echo x.c:1:2: runtime error: bad >&2" }):wait()
  end), "runtime error")
end

function T.test_notices_strays()
  lu.assertStrContains(verdict_of(function()
    local shell = h.start({ "sh", "-c",
      "setsid sh -c 'echo; exec sleep 1000' & wait" })
    shell:wait_line("^$")
  end), "left behind: process")
end

function T.test_notices_descriptors()
  lu.assertStrContains(verdict_of(function()
    return sys.listen()
  end), "1 descriptors were left open")
end

function T.test_the_watchdog_ends_a_wait_and_a_loop()
  sys.watchdog(0.1)
  lu.assertErrorMsgContains("longer than it may", sys.sleep, 100)
  sys.watchdog(0.1)
  lu.assertErrorMsgContains("longer than it may", function()
    while true do
      h.limit = nil
    end
  end)
end

return T
