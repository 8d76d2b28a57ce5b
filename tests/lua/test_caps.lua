-- SPDX-License-Identifier: MIT
--
-- The caps a relay keeps, each with what is said to whom when it is reached,
-- and that there is room again afterwards.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local scene = require("scene")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

local function await_room(agent)
  h.wait_until("there is room again", function()
    local visitor = sys.connect("127.0.0.1", agent.port)
    if visitor then
      visitor:send("x")
      return visitor:recv_exact(1) == "x"
    end
  end)
end

local function refused(relay, options)
  options = options or {}
  options.refused = true
  return typed.agent(relay, options).err
end

function T.test_agents()
  local relay = h.start_relay({ "--max-agents", 3 })
  local agents = {}
  for i = 1, 3 do
    agents[i] = typed.agent(relay)
  end
  local err = refused(relay)
  lu.assertEquals({ err.code, err.final, err.retry, err.reason },
    { "busy", "no", "1", "the relay is at its limit" })
  relay:wait_log('warn agent refused [^\n]*reason="the relay is at its limit"')
  agents[2]:bye()
  typed.agent(relay)
  -- A lost one is no agent any more, though its address is held.
  agents[1]:close()
  h.wait_until("there is room for another", function()
    local agent = typed.agent(relay, { either = true })
    return agent.ok ~= nil
  end)
end

-- Those who are asked about at the same time count as well.
function T.test_addresses_of_one_owner_while_a_hook_waits()
  local relay = policy.relay("return { allocate = function() " ..
    "relay.sleep(0.2) end }", { "--max-leases-per-owner", 2 })
  local sockets, counts = {}, {}
  for i = 1, 6 do
    sockets[i] = h.connect(relay)
    sockets[i]:send("RELAY/1 LISTEN\n")
  end
  for _, socket in ipairs(sockets) do
    local answer = typed.parse(socket:recv_line())
    local what = answer.code or answer.verb
    counts[what] = (counts[what] or 0) + 1
  end
  lu.assertEquals(counts, { OK = 2, quota = 4 })
end

-- Without tokens an owner is whoever comes from one address.
function T.test_addresses_of_one_owner()
  local relay = h.start_relay({ "--max-leases-per-owner", 2 })
  local first = typed.agent(relay)
  local second = typed.agent(relay)
  local err = refused(relay)
  lu.assertEquals({ err.code, err.final, err.reason },
    { "quota", "no", "limit for one owner reached" })
  relay:wait_log('warn agent refused [^\n]*reason="limit for one owner ' ..
    'reached"')
  typed.agent(relay, { from = "127.0.0.2" })
  first:bye()
  typed.agent(relay)
  -- Coming back to one's own is no more than before.
  local again = typed.agent(relay, { words = "resume=" .. second.resume })
  lu.assertEquals(again.port, second.port)
end

function T.test_a_program_waits_where_there_is_no_room()
  local relay = h.start_relay({ "--max-agents", 1 })
  local first = h.start_echoserver(relay)
  local second = h.start_echoserver(relay, { wait = false })
  second:wait_log('warn relay gave no address [^\n]*reason="the relay is at ' ..
    'its limit" retry_in_ms=1%d%d%d')
  first:stop()
  second:wait_address(20)
  local third = h.start_echoserver(relay, { "--once", wait = false,
    expect = 1 })
  lu.assertEquals({ third:wait() }, { "exit", 1 })
  lu.assertEquals(third:log(), ("echoserver: localhost:%d: relay gave no " ..
    "address: the relay is at its limit\n"):format(relay.port))
end

function T.test_visitors_of_one_address()
  local relay = h.start_relay({ "--max-visitors", 3 })
  local agent, other = h.start_echoserver(relay), h.start_echoserver(relay)
  local visitors = {}
  for i = 1, 3 do
    visitors[i] = h.connect(agent)
    visitors[i]:send("x")
    lu.assertEquals(visitors[i]:recv_exact(1), "x")
  end
  typed.turned_away(agent.port)
  relay:wait_log(('warn visitor turned away from=127.0.0.1:%%d+ port=%d ' ..
    'reason="too many visitors"'):format(agent.port))
  h.echo(other, 1000)
  visitors[1]:close()
  await_room(agent)
end

function T.test_visitors_that_wait_for_a_lost_agent()
  local relay = h.start_relay({ "--max-parked", 3 })
  local agent = typed.agent(relay)
  agent:close()
  relay:wait_log("agent gone")
  local visitors = {}
  for i = 1, 3 do
    visitors[i] = h.connect(agent.port)
    visitors[i]:send("patient")
    visitors[i]:shutdown()
  end
  typed.turned_away(agent.port)
  relay:wait_log("visitor closed [^\n]*reason=busy")
  local again = typed.agent(relay, { words = "resume=" .. agent.resume })
  for _ = 1, 3 do
    local data = again:accept(again:expect("VISITOR").id)
    lu.assertEquals({ data:recv_all() }, { "patient", "eof" })
  end
  -- With none, nobody waits.
  relay = h.start_relay({ "--max-parked", 0 })
  agent = typed.agent(relay)
  agent:close()
  relay:wait_log("agent gone")
  typed.turned_away(agent.port)
end

function T.test_idle_connections_of_one_agent()
  local relay = h.start_relay({ "--max-pool", 2, "--log-level", "debug" })
  local agent = typed.agent(relay, { words = "pool=10" })
  lu.assertEquals(agent.ok.pool, "2") -- what it may have
  local idle = { agent:wait(1), agent:wait(2) }
  scene.wait_sockets(relay, 5)
  lu.assertEquals({ agent:wait(3):recv_all() }, { "", "reset" })
  relay:wait_log("waiting connection refused from=127.0.0.1:%d+ " ..
    'reason="[%l ]+"')
  -- Those that are there serve, and leave room.
  local visitor = h.connect(agent.port)
  visitor:send("hello")
  local message = typed.parse(idle[2]:recv_line())
  lu.assertEquals(message.verb, "VISITOR")
  lu.assertEquals(idle[2]:recv_exact(5), "hello")
  -- A number twice, no number, another's session, none at all.
  local waits = "RELAY/1 WAIT session=" .. agent.session
  local numbered = 'waiting connection refused from=127.0.0.1:%d ' ..
    'reason="its number is not a new one"'
  local nobodys = 'connection refused from=127.0.0.1:%d ' ..
    'reason="no such session"'
  for line, words in pairs({ [waits .. " n=1"] = numbered,
      [waits .. " n=x"] = numbered,
      ["RELAY/1 WAIT session=0123 n=9"] = nobodys,
      ["RELAY/1 WAIT n=8"] = nobodys }) do
    local socket = h.connect(relay)
    local _, port = socket:address()
    socket:send(line .. "\n")
    lu.assertEquals({ socket:recv_all() }, { "", "reset" }, line)
    relay:wait_log(words:format(port))
  end
  agent:wait(4)
  scene.wait_sockets(relay, 7)
  -- None were granted: none are taken.
  local poor = typed.agent(relay)
  lu.assertNil(poor.ok.pool)
  lu.assertEquals({ poor:wait(1):recv_all() }, { "", "reset" })
end

-- What an agent takes at a time is its own cap; the rest it turns away.
function T.test_visitors_of_one_agent()
  local relay = h.start_relay()
  local agent = h.start_echoserver(relay, { "--max-visitors", 2 })
  local visitors = {}
  for i = 1, 2 do
    visitors[i] = h.connect(agent)
    visitors[i]:send("x")
    lu.assertEquals(visitors[i]:recv_exact(1), "x")
  end
  local began = sys.now()
  for _ = 1, 30 do
    typed.turned_away(agent.port)
  end
  agent:wait_log('warn visitor rejected id=%x+ reason="as many are served ' ..
    'as may be"')
  -- Not one for each, but one a second.
  local _, told = agent:log():gsub("visitor rejected", "")
  lu.assertTrue(told <= sys.now() - began + 2, agent:log())
  visitors[1]:close()
  await_room(agent)
end

-- Descriptors in all: visitors wait, as where the system sets the limit.
function T.test_descriptors()
  local relay = h.start_relay({ "--max-fds", 20 })
  local agent = h.start_echoserver(relay, { "--pool", 0 })
  local visitors = {}
  for i = 1, 30 do
    visitors[i] = h.connect(agent)
    visitors[i]:send("hello")
    visitors[i]:shutdown()
  end
  for _, visitor in ipairs(visitors) do
    lu.assertEquals({ visitor:recv_all() }, { "hello", "eof" })
    visitor:close()
  end
  scene.wait_sockets(relay, 3)
end

return T
