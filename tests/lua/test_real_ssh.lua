-- SPDX-License-Identifier: MIT
--
-- OpenSSH through the relay: files of 100 MB both ways, one after the other
-- and at once, and a session at a terminal. ssh checks every block it gets, so
-- a byte that is wrong, missing or in the wrong place ends it.

local lu = require("luaunit")
local h = require("harness")
local real = require("real")
local sys = h.sys

local T = { limit = 120 }

local SIZE = 100 * 1000 * 1000

local sshd, expose, dir

local function start()
  sshd = real.start_sshd()
  expose = h.start_expose(h.start_relay(), sshd.port)
  dir = h.tmpdir()
end

-- Runs COMMAND over there, with files for standard input and output.
local function ssh(command, input, output)
  local client = h.start(real.ssh(sshd, expose.port, { command,
    stdin = input, stdout = output }))
  local how, status = client:wait(60)
  lu.assertEquals({ how, status }, { "exit", 0 }, client:log())
  return client
end

h.each_mode(T, "test_100_mb_both_ways", function()
  h.need("sha256sum")
  start()
  local file = real.make_file(dir .. "/file", SIZE, 11)
  local digest = real.digest(file)
  local there, back, echo = dir .. "/there", dir .. "/back", dir .. "/echo"
  ssh("cat > " .. there, file)
  lu.assertEquals(real.digest(there), digest)
  ssh("cat " .. there, nil, back)
  lu.assertEquals(real.digest(back), digest)
  -- Both ways at the same time.
  ssh("cat", file, echo)
  lu.assertEquals(real.digest(echo), digest)
  real.await_sessions_end(sshd)
end)

function T.test_scp()
  h.need("scp")
  start()
  local file = real.make_file(dir .. "/file", SIZE // 10, 12)
  local words = { "scp", "-q", "-P", expose.port }
  table.move(sshd.options, 1, #sshd.options, #words + 1, words)
  table.insert(words, file)
  table.insert(words, ("%s@127.0.0.1:%s/there"):format(sshd.user, dir))
  h.output_of(words)
  lu.assertEquals(real.digest(dir .. "/there"), real.digest(file))
  real.await_sessions_end(sshd)
end

-- As by hand: at a terminal, a line typed once the answer to the last is seen.
function T.test_a_session_at_a_terminal()
  start()
  local session = h.start(real.ssh(sshd, expose.port,
    { "PS1='ready> ' sh", stdin = "pipe" }, "-tt"))
  local function type_line(line)
    local before = #session:text()
    session:write(line .. "\n")
    return before
  end
  local function await(before, pattern)
    return h.wait_until("the session shows " .. pattern, function()
      return session:text():sub(before + 1):match(pattern)
    end)
  end
  await(0, "ready> ")
  for i = 1, 5 do
    local before = type_line(("echo $((%d * 7)) times"):format(i))
    await(before, "\n" .. i * 7 .. " times\r?\nready> ")
  end
  await(type_line("tty"), "/dev/pts/%d+")
  type_line("exit 5")
  lu.assertEquals({ session:wait() }, { "exit", 5 })
  real.await_sessions_end(sshd)
end

-- Port forwarding: connections within the connection.
function T.test_a_tunnel_within()
  start()
  local port = real.free_port()
  local listener = sys.listen()
  local tunnel = h.start(real.ssh(sshd, expose.port,
    { "echo up; cat", stdin = "pipe" }, "-L",
    ("127.0.0.1:%d:127.0.0.1:%d"):format(port, listener:port())))
  tunnel:wait_line("^up$")
  local near = h.connect(port)
  h.exchange(near, assert(listener:accept()), 5 << 20)
  near:close()
  tunnel:close_stdin()
  lu.assertEquals({ tunnel:wait() }, { "exit", 0 })
  real.await_sessions_end(sshd)
end

return T
