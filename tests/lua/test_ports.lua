-- SPDX-License-Identifier: MIT
--
-- Public ports: which are handed out, in which order, what is refused and how
-- it is said, and how soon one that was freed can be used again.

local lu = require("luaunit")
local h = require("harness")
local keyed = require("keyed")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

-- `count` ports in a row that nobody has, below those the system hands out.
local seed = sys.pid()

local function free_range(count)
  for _ = 1, 100 do
    seed = (seed * 16807 + 7) % 2147483647
    local low = 10000 + seed % (20000 - count)
    local listeners, good = {}, true
    for port = low, low + count - 1 do
      local listener = sys.listen({ host = "::", port = port })
      good = good and listener ~= nil
      table.insert(listeners, listener)
    end
    for _, listener in ipairs(listeners) do
      listener:close()
    end
    if good then
      return low, low + count - 1
    end
  end
  error("no free range of ports")
end

local function range(low, high)
  return ("%d-%d"):format(low, high)
end

local function refused(relay, words)
  return typed.agent(relay, { words = words, refused = true }).err
end

-- Closed by the relay first, so that it is the relay's side that waits out the
-- connection's end.
local function leave_time_wait(agent)
  local visitor, data = agent:join()
  data:shutdown()
  lu.assertEquals({ visitor:recv_all() }, { "", "eof" })
  visitor:shutdown()
  lu.assertEquals({ data:recv_all() }, { "", "eof" })
end

local function has_time_wait(port)
  for _, name in ipairs({ "/proc/net/tcp", "/proc/net/tcp6" }) do
    if h.read_file(name):find((":%04X %%x+:%%x+ 06 "):format(port)) then
      return true
    end
  end
end

function T.test_a_range_of_100_is_taken_and_freed()
  local low, high = free_range(100)
  local relay = h.start_relay({ "--ports", range(low, high) })
  local agents = {}
  for i = 1, 100 do
    agents[i] = typed.agent(relay)
    lu.assertEquals(agents[i].port, low + i - 1)
  end
  local err = refused(relay)
  lu.assertEquals({ err.code, err.final, err.reason },
    { "no-port", "no", "every port of the range is taken" })
  relay:wait_log('agent refused [^\n]*reason="every port of the range is ' ..
    'taken"')
  err = refused(relay, "port=" .. low + 7)
  lu.assertEquals({ err.code, err.final, err.reason },
    { "port-taken", "no", "port is taken" })
  -- One that was used and is given back serves again at once.
  local victim = agents[43]
  leave_time_wait(victim)
  h.wait_until("a closed connection lingers on its port", function()
    return has_time_wait(victim.port)
  end)
  victim:bye()
  local again = typed.agent(relay)
  lu.assertEquals(again.port, victim.port)
  lu.assertTrue(has_time_wait(victim.port))
  local visitor, data = again:join()
  h.exchange(visitor, data, 10000)
  -- All visitors reach whom they mean.
  for i = 1, 100, 9 do
    if agents[i] ~= victim then
      visitor, data = agents[i]:join()
      h.exchange(visitor, data, 1000)
    end
  end
end

function T.test_a_program_tells_that_there_is_no_port()
  local low = free_range(1)
  local relay = h.start_relay({ "--ports", range(low, low) })
  local first = h.start_echoserver(relay)
  local second = h.start_echoserver(relay, { "--once", wait = false,
    expect = 1 })
  lu.assertEquals({ second:wait() }, { "exit", 1 })
  lu.assertStrContains(second:log(), ("echoserver: localhost:%d: relay gave " ..
    "no address: every port of the range is taken\n"):format(relay.port))
  -- Without --once it waits for its turn, says so once, and gets it.
  second = h.start_echoserver(relay, { wait = false })
  second:wait_log('relay gave no address [^\n]*reason="every port of the ' ..
    'range is taken" retry_in_ms=%d+')
  first:stop()
  second:wait_address(20)
  lu.assertEquals(second.port, low)
  h.echo(second, 10000)
end

-- LO first, then on, and around; not one that was just freed.
function T.test_a_range_starts_low_and_wraps()
  local low, high = free_range(4)
  local relay = h.start_relay({ "--ports", range(low, high) })
  local first = typed.agent(relay)
  lu.assertEquals(first.port, low)
  first:bye()
  local second = typed.agent(relay)
  lu.assertEquals(second.port, low + 1)
  second:bye()
  local third, fourth = typed.agent(relay), typed.agent(relay)
  lu.assertEquals({ third.port, fourth.port }, { low + 2, high })
  local fifth = typed.agent(relay)
  lu.assertEquals(fifth.port, low)
  fifth:bye()
  -- What somebody else listens on is passed over.
  local other = assert(sys.listen({ host = "::", port = low + 1 }))
  lu.assertEquals(typed.agent(relay).port, low)
  other:close()
end

-- Without a range the first is the one after the relay's own.
function T.test_without_a_range_it_is_the_next_free_one()
  local low = free_range(6)
  local relay = h.start_relay({ port = low })
  lu.assertEquals(relay.port, low)
  local taken = assert(sys.listen({ host = "::", port = low + 2 }))
  local first, second = typed.agent(relay), typed.agent(relay)
  lu.assertEquals({ first.port, second.port }, { low + 1, low + 3 })
  taken:close()
  first:bye()
  lu.assertEquals(typed.agent(relay).port, low + 4)
end

function T.test_ports_that_are_asked_for()
  local low, high = free_range(8)
  local relay = h.start_relay({ "--ports", range(low, high - 1) })
  local agent = h.start_echoserver(relay, { "--port", low + 3 })
  lu.assertEquals(agent.port, low + 3)
  for _, port in ipairs({ 22, 80, low - 1, high, 65535, relay.port }) do
    local err = refused(relay, "port=" .. port)
    lu.assertEquals({ err.code, err.final, err.reason },
      { "port-refused", "yes", "port not allowed" }, port)
    relay:wait_log('agent refused [^\n]*reason="port not allowed"')
  end
  local refused_one = h.start_echoserver(relay, { "--port", 22, wait = false,
    expect = 1 })
  lu.assertEquals({ refused_one:wait() }, { "exit", 1 })
  lu.assertEquals(refused_one:log(), ("echoserver: localhost:%d: relay " ..
    "refused: port not allowed\n"):format(relay.port))
end

-- Without a range too: nothing privileged, and not what others have.
function T.test_no_privileged_port_and_nobody_elses()
  local relay = h.start_relay()
  local agent = typed.agent(relay)
  for port, code in pairs({ [22] = "port-refused", [1023] = "port-refused",
      [agent.port] = "port-taken", [relay.port] = "port-taken" }) do
    lu.assertEquals(refused(relay, "port=" .. port).code, code, port)
  end
  local other = sys.listen({ host = "::" })
  lu.assertEquals(refused(relay, "port=" .. other:port()).code, "port-taken")
  other:close()
end

-- What is asked for by name is refused by name, to the programs too.
function T.test_programs_are_refused_what_is_not_theirs()
  local file, tokens = keyed.make_tokens({ "alice", "bob" })
  local low = free_range(4)
  h.write_file(file, (h.read_file(file):gsub("(bob [^\n]*)\n",
    ("%%1 ports=%d-%d\n"):format(low + 1, low + 2))))
  local relay = h.start_relay({ "--tokens", file })
  local function enter(id, port, once)
    return h.start_echoserver(relay, { "--port", port, "--name", "at" .. port,
      once, wait = not once, expect = once and 1,
      env = { RELAY_TOKEN = tokens[id] } })
  end
  local hers = enter("alice", low + 1)
  local his = enter("bob", low + 2)
  lu.assertEquals({ hers.port, his.port }, { low + 1, low + 2 })
  for port, why in pairs({ [22] = "port not allowed",
      [low + 3] = "port not allowed", [low + 1] = "port is taken",
      [relay.port] = "port not allowed" }) do
    local once = enter("bob", port, "--once")
    lu.assertEquals({ once:wait() }, { "exit", 1 })
    lu.assertStrContains(once:log(), why)
  end
  h.echo(hers, 1000)
  h.echo(his, 1000)
end

-- One who takes all there are gets what one owner may have, and nobody else
-- goes without.
function T.test_an_owner_of_ten_thousand_ports()
  local count = os.getenv("RELAY_TEST_FULL") == "1" and 10000 or 1000
  local relay = h.start_relay()
  local granted, codes = 0, {}
  for _ = 1, count do
    local agent = typed.agent(relay, { either = true })
    if agent.ok then
      granted = granted + 1
    else
      codes[agent.err.code] = (codes[agent.err.code] or 0) + 1
      agent:close()
    end
  end
  lu.assertEquals({ granted, codes }, { 256, { quota = count - 256 } })
  local other = typed.agent(relay, { from = "127.0.0.2" })
  local visitor, data = other:join()
  h.exchange(visitor, data, 1000)
end

-- An agent that was lost keeps its port, and nobody gets it meanwhile.
function T.test_a_lost_agents_port_is_not_given_away()
  local low = free_range(1)
  local relay = h.start_relay({ "--ports", range(low, low),
    "--grace", "3s" })
  local agent = typed.agent(relay)
  agent:close()
  relay:wait_log("agent gone")
  lu.assertEquals(refused(relay).code, "no-port")
  lu.assertEquals(refused(relay, "port=" .. low).code, "port-taken")
  relay:wait_log("address released port=" .. low)
  lu.assertEquals(typed.agent(relay).port, low)
  -- The old ticket is worth nothing any more.
  lu.assertEquals(refused(relay, "resume=" .. agent.resume).code, "no-port")
end

return T
