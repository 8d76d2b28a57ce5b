-- SPDX-License-Identifier: MIT
--
-- Well-known programs through the relay: a database under load, servers that
-- speak first, what people type into nc and telnet, and iperf3. The web and
-- ssh have files of their own.

local lu = require("luaunit")
local h = require("harness")
local real = require("real")
local sys = h.sys

local T = { limit = 90 }

-- ---- redis -----------------------------------------------------------------

local function redis_cli(port, words)
  local command = { "redis-cli", "-h", "127.0.0.1", "-p", port }
  command.input = words.input
  return h.output_of(table.move(words, 1, #words, #command + 1, command))
end

h.each_mode(T, "test_redis_benchmark", function()
  local redis = real.start_redis()
  local relay = h.start_relay()
  for _, target in ipairs({ redis.port, "unix:" .. redis.path }) do
    local expose = h.start_expose(relay, target)
    for _, how in ipairs({
      { "-c", "50", "-n", "5000", "-t", "ping_mbulk,set,get,lpush,lrange_100" },
      { "-c", "10", "-n", "20000", "-t", "set,get,incr", "-P", "32" },
      { "-c", "20", "-n", "1000", "-t", "set,get", "-d", "100000" },
    }) do
      local command = { "redis-benchmark", "-h", "127.0.0.1", "-p",
        expose.port, "--csv", seconds = 60 }
      local text = h.output_of(table.move(how, 1, #how, #command + 1, command))
      local _, lines = text:gsub('"[^"]+","[%d.]+"', "")
      lu.assertTrue(lines >= 2, text)
      lu.assertNotStrContains(text, "rror")
    end
    expose:stop()
  end
  -- The server did what the benchmark counted.
  local done = redis_cli(redis.port, { "info", "stats" })
    :match("total_commands_processed:(%d+)")
  lu.assertTrue(tonumber(done) >= 2 * (5 * 5000 + 3 * 20000 + 2 * 1000), done)
end)

function T.test_redis_values_and_pushes()
  local redis = real.start_redis()
  local expose = h.start_expose(h.start_relay(), redis.port)
  local value = sys.pattern(5, 0, 20 << 20)
  lu.assertEquals(redis_cli(expose.port, { "-x", "set", "big",
    input = value }), "OK\n")
  local back = redis_cli(expose.port, { "get", "big" })
  lu.assertTrue(back == value .. "\n")
  -- Now the server speaks without being asked.
  local listener = h.start({ "redis-cli", "-h", "127.0.0.1", "-p",
    expose.port, "subscribe", "news" })
  listener:wait_line("^1$")
  for i = 1, 20 do
    lu.assertEquals(redis_cli(expose.port, { "publish", "news", "n" .. i }),
      "1\n")
    listener:wait_line("^n" .. i .. "$")
  end
end

-- ---- servers that speak first ----------------------------------------------

-- The other side of a mail, by hand.
local function take_mail(connection)
  local lines = {}
  connection:send("220 mail.example.org ready\r\n")
  local function expect(pattern, answer)
    local line = assert(connection:recv_line())
    lu.assertStrMatches(line, pattern .. ".*\r")
    connection:send(answer .. "\r\n")
  end
  expect("EHLO ", "250 mail.example.org")
  expect("MAIL FROM:<a@example.org>", "250 ok")
  expect("RCPT TO:<b@example.org>", "250 ok")
  expect("DATA", "354 go on")
  repeat
    local line = assert(connection:recv_line())
    table.insert(lines, line .. "\n")
  until line == ".\r"
  connection:send("250 taken\r\n")
  expect("QUIT", "221 bye")
  connection:close()
  return table.concat(lines)
end

h.each_mode(T, "test_mail", function()
  h.need("curl")
  local server = sys.listen()
  local expose = h.start_expose(h.start_relay(), server)
  local mail = "Subject: test\r\n\r\n" .. ("A line.\r\n"):rep(20000)
  local file = h.write_file(h.tmpdir() .. "/mail", mail)
  for _ = 1, 5 do
    local curl = h.start({ "curl", "-sS", "--max-time", "30", "--mail-from",
      "a@example.org", "--mail-rcpt", "b@example.org", "-T", file,
      "smtp://127.0.0.1:" .. expose.port })
    local taken = take_mail(assert(server:accept()))
    lu.assertTrue(taken == mail .. ".\r\n")
    lu.assertEquals({ curl:wait() }, { "exit", 0 })
  end
end)

-- A banner and an end, to a visitor that never says anything.
function T.test_a_banner_only()
  h.need("nc")
  local server = sys.listen()
  local expose = h.start_expose(h.start_relay(), server)
  local nc = h.start({ "nc", "127.0.0.1", expose.port, stdin = "pipe" })
  local connection = assert(server:accept())
  connection:send("220 come in\r\n")
  lu.assertEquals(nc:wait_line("."), "2")
  connection:send("bye\r\n")
  connection:close()
  nc:wait_line("^bye\r$")
  nc:close_stdin()
  lu.assertEquals({ nc:wait() }, { "exit", 0 })
  lu.assertEquals(nc:text(), "220 come in\r\nbye\r\n")
end

function T.test_the_banner_of_ssh_by_nc()
  h.need("nc")
  local sshd = real.start_sshd()
  local expose = h.start_expose(h.start_relay(), sshd.port)
  for _ = 1, 5 do
    local nc = h.start({ "nc", "127.0.0.1", expose.port, stdin = "pipe" })
    nc:wait_line("^SSH%-2%.0%-OpenSSH")
    nc:write("nonsense\r\n") -- for which sshd throws it out
    nc:wait_line("^Invalid SSH identification string")
    nc:close_stdin()
    nc:wait()
  end
  real.await_sessions_end(sshd)
end

-- ---- by hand, to the echo server -------------------------------------------

h.each_mode(T, "test_nc_by_hand", function()
  h.need("nc")
  local echo = h.start_echoserver(h.start_relay())
  local nc = h.start({ "nc", "-N", "localhost", echo.port, stdin = "pipe" })
  for i = 1, 20 do
    nc:write(("line %d\n"):format(i))
    nc:wait_line(("^line %d$"):format(i))
  end
  nc:write("and no line end")
  nc:close_stdin()
  lu.assertEquals({ nc:wait() }, { "exit", 0 })
  lu.assertStrMatches(nc:text(), "line 1\n.*line 20\nand no line end")
  -- A file, as people do it.
  local text = sys.pattern(9, 0, 10 << 20)
  lu.assertTrue(h.output_of({ "nc", "-N", "127.0.0.1", echo.port,
    input = text }) == text)
  lu.assertEquals(h.output_of({ "nc", "-N", "::1", echo.port, input = "six" }),
    "six")
end)

-- telnet wants a terminal: `script` gives it one.
h.each_mode(T, "test_telnet_by_hand", function()
  h.need("telnet", "script")
  local echo = h.start_echoserver(h.start_relay())
  local telnet = h.start({ "script", "-qec",
    "telnet 127.0.0.1 " .. echo.port, "/dev/null", stdin = "pipe" })
  telnet:wait_line("^Escape character is")
  for i = 1, 10 do
    -- Once as the terminal shows what is typed, once as it comes back.
    telnet:write(("line %d\r"):format(i))
    for _ = 1, 2 do
      telnet:wait_line(("^line %d\r?$"):format(i))
    end
  end
  telnet:write("\x1d")
  h.wait_until("telnet listens to us", function()
    return telnet:text():find("telnet> ", 1, true)
  end)
  telnet:write("quit\r")
  lu.assertEquals({ telnet:wait() }, { "exit", 0 })
  lu.assertStrContains(telnet:text(), "Connection closed")
end)

-- ---- iperf3 ----------------------------------------------------------------

-- Sanity, not speed: bytes move, each way and both at once, and no error. How
-- many have arrived when the sender has sent its last is a matter of buffers.
h.each_mode(T, "test_iperf3", function()
  h.need("iperf3")
  local port = real.free_port()
  local server = h.start({ "iperf3", "-s", "-B", "127.0.0.1", "-p", port })
  real.await_port(server, port)
  local expose = h.start_expose(h.start_relay(), port)
  local bytes = 200 << 20
  for _, how in ipairs({ { "-P", "1" }, { "-P", "8" }, { "-R" },
                         { "--bidir" } }) do
    local command = { "iperf3", "-c", "127.0.0.1", "-p", expose.port, "-J",
      "-n", bytes, seconds = 60 }
    table.move(how, 1, #how, #command + 1, command)
    local text = h.wait_until("the server is done with the last run", function()
      local result = h.run(command).stdout
      return not result:find("server is busy", 1, true) and result
    end)
    lu.assertNotStrContains(text, '"error"')
    for _, sum in ipairs({ "sum_sent", "sum_received" }) do
      local count = text:match(('"%s":%%s*{.-"bytes":%%s*(%%d+)'):format(sum))
      lu.assertTrue(math.tointeger(count) > 0, sum)
    end
  end
end)

return T
