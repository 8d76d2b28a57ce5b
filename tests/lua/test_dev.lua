-- SPDX-License-Identifier: MIT
--
-- The one door: ./dev run reaches the example session, says what to type, and
-- leaves no process behind; ./dev itself answers to wrong use.

local lu = require("luaunit")
local h = require("harness")
local sys = h.sys

local T = { limit = 300 }

local dev = h.source .. "dev"

-- The session on a free port, once it says what to type.
local function start_session()
  local session = h.start({ dev, "run", "0" })
  local host, port = session:wait_line("^    nc (%S+) (%d+)$", 240)
  lu.assertEquals(host, "localhost")
  session:wait_line("Ctrl%-C")
  return session, math.tointeger(port)
end

local function assert_group_ends(session)
  h.wait_until("no process of the session is left", function()
    return not sys.kill(-session:pid(), 0)
  end)
end

function T.test_session_echoes_and_ends()
  h.need("nc")
  local session, port = start_session()
  lu.assertEquals(h.output_of({ "nc", "-N", "localhost", port,
    input = "hello" }), "hello")
  lu.assertStrMatches(session:text(),
    ".*established relay address: %(localhost, " .. port .. "%).*")
  lu.assertNotStrContains(session:log(), "grep:")
  -- As a terminal does it: to the whole group.
  sys.kill(-session:pid(), "INT")
  lu.assertEquals({ session:wait() }, { "exit", 0 })
  assert_group_ends(session)
end

function T.test_session_ends_when_only_dev_is_told()
  local session, port = start_session()
  local visitor = h.connect(port) -- still there when it ends
  session:kill("TERM")
  lu.assertEquals({ session:wait() }, { "exit", 143 })
  assert_group_ends(session)
  lu.assertEquals(visitor:recv_all(), "")
end

function T.test_session_says_why_it_did_not_start()
  local listener = sys.listen({ host = "::" })
  local result = h.run({ dev, "run", listener:port(), seconds = 240 })
  lu.assertEquals(result.status, 1)
  lu.assertStrContains(result.stderr, "cannot listen on")
  lu.assertStrContains(result.stderr, "address already in use")
end

function T.test_usage()
  lu.assertStrContains(h.output_of({ dev, "help" }), "usage: ./dev")
  lu.assertEquals(h.run({ dev, "nonsense" }).status, 2)
  lu.assertEquals(h.run({ dev, "run", "port" }).status, 2)
  lu.assertEquals(h.run({ dev, "test", "--nonsense" }).status, 2)
end

-- The session is built in its own way whatever is tested: once is enough.
if h.sanitized then
  return { test_usage = T.test_usage }
end
return T
