-- SPDX-License-Identifier: MIT
--
-- Standard output that takes nothing: who was asked for an answer says that it
-- is not there, who serves others goes on and logs it. And a log that is not
-- read.

local lu = require("luaunit")
local h = require("harness")

local T = { limit = 60 }

-- A program whose standard output is full. The log is as ever.
local function full(...)
  return { "sh", "-c", 'exec "$@" >/dev/full', "sh", ... }
end

function T.setUp()
  if h.run({ "test", "-c", "/dev/full" }).status ~= 0 then
    h.skip("there is no /dev/full here")
  end
end

function T.test_an_answer_that_is_lost()
  local script = h.write_file(h.tmpdir() .. "/policy.lua", "return {}\n")
  local tokens = h.tmpdir() .. "/tokens"
  h.output_of({ h.program("relay"), "token", "new", "a", "--tokens", tokens })
  for _, case in ipairs({
    { "relay", "relay", "--help" },
    { "relay", "relay", "--version" },
    { "relay", "relay", "0", "--print-sandbox" },
    { "relay", "relay", "--check", "--script", script },
    { "relay token", "relay", "token", "--help" },
    { "relay token", "relay", "token", "--version" },
    { "relay token list", "relay", "token", "list", "--tokens", tokens },
    { "expose", "expose", "--help" },
    { "echoserver", "echoserver", "--version" },
  }) do
    local result = h.run(full(h.program(case[2]), table.unpack(case, 3)))
    local words = table.concat(case, " ", 2)
    lu.assertEquals(result.status, 1, words)
    lu.assertStrMatches(result.stderr, case[1] ..
      ": cannot write to standard output: [%l/ ]+\n", nil, nil, words)
  end
end

-- It has left with what it wanted, such as the first lines of a help.
function T.test_a_reader_that_leaves()
  for _, name in ipairs({ "relay", "expose", "echoserver" }) do
    local result = h.run({ "sh", "-c", 'trap "" PIPE; { "$1" --help; ' ..
      'echo "$?" >&2; } | :', "sh", h.program(name) })
    lu.assertEquals(result.stderr, "0\n")
  end
end

function T.test_an_address_that_nobody_is_told()
  local port = require("real").free_port()
  local relay = h.start(full(h.program("relay"), port))
  relay:wait_log('warn address not printed reason="no space left on device"\n')
  local public = require("real").free_port()
  local agent = h.start(full(h.program("echoserver"), "localhost", port,
    "--port", public))
  agent:wait_log('warn address not printed reason="no space left on device"\n')
  h.echo(tonumber(public), 1000)
  for _, process in ipairs({ agent, relay }) do
    process:kill("TERM")
    lu.assertEquals({ process:wait() }, { "exit", 0 })
  end
end

-- A log that nobody reads, such as in a pager, holds up nobody; and says what
-- is missing as soon as it is read.
function T.test_a_log_that_is_not_read()
  local fifo = h.tmpdir() .. "/log"
  h.output_of({ "mkfifo", fifo })
  for _, halted in ipairs({ "relay", "echoserver" }) do
    local function start(name, ...)
      local words = { h.program(name), ... }
      if name == halted then
        words = { "sh", "-c", 'log=$1; shift; exec "$@" 2<>"$log"', "sh", fifo,
          table.unpack(words) }
      end
      return h.start(words)
    end
    local relay = start("relay", 0)
    local _, port = relay:wait_line("^listening on (.*):(%d+)$")
    local agent = start("echoserver", "localhost", port)
    _, port = agent:wait_line("^established relay address: %((.*), (%d+)%)$")
    for _ = 1, 800 do -- a line of 100 bytes or more for each, of 64 KiB
      h.echo(tonumber(port), 1)
    end
    local reader = h.start({ "cat", fifo })
    repeat
      h.echo(tonumber(port), 1)
    until reader:text():find(" warn log lines lost count=%d+\n")
    reader:kill("KILL")
    for _, process in ipairs({ agent, relay }) do
      process:kill("TERM")
      lu.assertEquals({ process:wait() }, { "exit", 0 })
    end
  end
end

return T
