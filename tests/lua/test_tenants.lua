-- SPDX-License-Identifier: MIT
--
-- Two tenants of one relay, who call themselves the same. Bob does all he can
-- think of with what is alice's; and of all bytes that he is ever sent, none is
-- hers.

local lu = require("luaunit")
local h = require("harness")
local keyed = require("keyed")
local policy = require("policy")
local real = require("real")
local typed = require("typed")

local T = { limit = 60, tearDown = typed.close_all }

local payload <const> = "words for alice alone"
local her_visitors <const> = "127.0.7.7"

-- ---- what each of them has --------------------------------------------------

local Tenant = {}
Tenant.__index = Tenant

local function new_tenant(file, id)
  return setmetatable({ id = id, key = keyed.key_of(file, id), wires = {},
    own = {} }, Tenant)
end

function Tenant:record(connection)
  table.insert(self.wires, connection.process)
  return connection
end

-- Whatever is this tenant's and could be told.
function Tenant:owns(...)
  for _, text in ipairs({ ... }) do
    table.insert(self.own, text)
  end
end

-- A control connection that has said LISTEN; what it was answered.
function Tenant:ask(relay, words)
  local agent = self:record(keyed.connect(relay, "t/" .. self.id, self.key))
  agent:prove()
  agent:say("RELAY/1 LISTEN host=localhost %s", words)
  local answer = agent:hear()
  if answer.verb == "OK" then
    agent.session, agent.port = answer.session, math.tointeger(answer.port)
    agent.resume = answer.resume
    self:owns(answer.session, answer.resume, agent.key, ":" .. answer.port,
      "=" .. answer.port)
  end
  return agent, answer
end

function Tenant:listen(relay, words)
  local agent, answer = self:ask(relay, words)
  lu.assertEquals(answer.verb, "OK", answer.reason)
  return agent
end

-- A connection that says it is `identity`, with what follows from the keys of
-- this tenant's session: nobody is let in that way who is not meant.
function Tenant:intrude(agent, identity)
  self:record(agent:data(identity)):fail()
end

-- A visitor of an agent, served; `from` and `said` are the tenant's own.
function Tenant:serve(agent, from, said)
  local visitor = h.connect(agent.port, { from = from })
  local id = agent:hear().id
  self:owns(id, from, said)
  local data = self:record(agent:accept(id))
  visitor:send(said .. "\n")
  data.process:wait_line("^" .. said .. "$")
  data:say("answer: %s", said)
  lu.assertEquals(visitor:recv_line(), "answer: " .. said)
  return visitor
end

-- A text, with no letter or digit after it.
local function holds(bytes, text)
  return bytes:find(text:gsub("%p", "%%%0") .. "%f[^%w]") ~= nil
end

local function expect_apart(one, other)
  for _, wire in ipairs(one.wires) do
    local bytes = wire:text()
    for _, text in ipairs(other.own) do
      lu.assertFalse(holds(bytes, text),
        ("%s was sent '%s' of %s"):format(one.id, text, other.id))
    end
    -- What the relay counts for one does not go on for another.
    local pings = 0
    for n in bytes:gmatch("\nPING n=(%d+)") do
      pings = pings + 1
      lu.assertEquals(math.tointeger(n), pings)
    end
  end
  for _, text in ipairs(one.own) do -- so that it is known to be seen
    one.seen = one.seen or holds(one.wires[1]:text(), text)
  end
  lu.assertTrue(one.seen)
end

-- ---- what bob tries ---------------------------------------------------------

-- Her port, her ticket, both, under her names and his own.
local function ask_for_hers(bob, relay, hers)
  for _, name in ipairs({ "web", "alices-other", "bobs" }) do
    for _, words in ipairs({ ("port=%d"):format(hers.port),
        ("port=%d resume=%s"):format(hers.port, hers.resume) }) do
      local _, answer = bob:ask(relay, ("%s name=%s"):format(words, name))
      lu.assertEquals({ answer.verb, answer.code }, { "ERR", "port-taken" })
    end
  end
  local agent = bob:listen(relay, "name=bobs resume=" .. hers.resume)
  lu.assertNotEquals(agent.port, hers.port)
  agent:say("BYE")
  agent.process:wait()
end

-- Her sessions and her visitors' ids, from his session and from outside.
local function use_hers(bob, relay, his, hers, id)
  bob:intrude(his, "v/" .. id)
  bob:intrude(his, ("w/%s/1"):format(hers.session))
  for _, line in ipairs({
    "RELAY/1 ACCEPT session=%s id=%s", "RELAY/1 WAIT session=%s n=1 id=%s" }) do
    local socket = h.connect(relay)
    socket:send(line:format(hers.session, id) .. "\n")
    lu.assertEquals({ socket:recv_all() }, { "", "reset" })
    socket:close()
  end
  his:say("REJECT id=%s reason=mine", id)
  his:say("PING n=4711") -- heard, and so was what came before
  lu.assertEquals(his:hear().n, "4711")
end

local function two_tenants(file)
  return new_tenant(file, "alice"), new_tenant(file, "bob")
end

local function start(file, state, port)
  return h.start_relay({ "--tokens", file, "--penalties", "off", "--state",
    state, "--heartbeat", "100ms", "--dead", "10m",
    port = port or real.free_port() })
end

function T.test_nothing_of_one_reaches_the_other()
  local file, state = keyed.make_tokens({ "alice", "bob" }), h.tmpdir()
  local relay = start(file, state)
  local alice, bob = two_tenants(file)
  alice:owns("alice", "alices-other", her_visitors)
  bob:owns("bobs", "127.0.9.9")

  local hers = alice:listen(relay, "name=web")
  local other = alice:listen(relay, "name=alices-other")
  local his = bob:listen(relay, "name=web")
  lu.assertNotEquals(hers.port, his.port)
  local served = alice:serve(hers, her_visitors, payload)
  local his_visitor = bob:serve(his, "127.0.9.9", "words for bob alone")

  -- While both are there.
  local asking = h.connect(hers.port, { from = her_visitors })
  local id = hers:hear().id
  alice:owns(id)
  ask_for_hers(bob, relay, hers)
  ask_for_hers(bob, relay, other)
  use_hers(bob, relay, his, hers, id)
  local data = alice:record(hers:accept(id))
  asking:send("still hers\n")
  data.process:wait_line("^still hers$")
  served:send("and so is this\n")

  -- While she is away, with somebody who waits for her.
  hers.process:kill("KILL")
  relay:wait_log("agent gone [^\n]*port=" .. hers.port)
  local waiting = h.connect(hers.port, { from = her_visitors })
  waiting:send(payload .. "\n")
  ask_for_hers(bob, relay, hers)
  use_hers(bob, relay, his, hers, id)

  -- When the relay was away as well, and he is back first.
  relay:kill("KILL")
  relay:wait()
  waiting:close()
  relay = start(file, state, relay.port)
  waiting = h.connect(hers.port, { from = her_visitors })
  waiting:send(payload .. "\n")
  his = bob:listen(relay, "name=web")
  ask_for_hers(bob, relay, hers)
  ask_for_hers(bob, relay, other)
  use_hers(bob, relay, his, hers, id)
  local again = alice:listen(relay, "name=web")
  lu.assertEquals(again.port, hers.port)
  local last = again:hear()
  alice:owns(last.id)
  data = alice:record(again:accept(last.id))
  data.process:wait_line("^" .. payload .. "$")

  h.wait_until("both have heard the relay count", function()
    return holds(his.process:text(), "PING n=3") and
      holds(again.process:text(), "PING n=3")
  end)
  expect_apart(bob, alice)
  expect_apart(alice, bob)
  for _, socket in ipairs({ served, his_visitor, asking, waiting }) do
    socket:close()
  end
end

-- What one has used up is the other's still.
function T.test_a_cap_is_ones_own()
  local file, tokens = h.tmpdir() .. "/tokens", {}
  for id, cap in pairs({ alice = "1", bob = "2" }) do
    tokens[id] = h.output_of({ h.program("relay"), "token", "new", id,
      "--tokens", file, "--leases", cap, "--visitors", cap }):match("%S+")
  end
  local relay = h.start_relay({ "--tokens", file })
  local function enter(id, name, once)
    return h.start_echoserver(relay, { "--name", name, once, wait = not once,
      expect = once and 1, env = { RELAY_TOKEN = tokens[id] } })
  end
  local hers, his = enter("alice", "web"), enter("bob", "web")
  local refused = enter("alice", "more", "--once")
  lu.assertEquals({ refused:wait() }, { "exit", 1 })
  lu.assertStrContains(refused:log(), "limit for one owner reached")
  local more = enter("bob", "more")
  lu.assertNotEquals(more.port, his.port)
  local visitors = {}
  for i, agent in ipairs({ hers, his, his, more, more }) do
    visitors[i] = h.connect(agent)
    visitors[i]:send("x")
    lu.assertEquals(visitors[i]:recv_exact(1), "x")
  end
  for _, agent in ipairs({ hers, his, more }) do
    typed.turned_away(agent.port)
  end
end

-- ---- in a script ------------------------------------------------------------

-- Two agents who say the same of themselves are two, and so is what the script
-- has put on them and on their visitors.
function T.test_a_scripts_data_is_of_one_agent()
  local relay = policy.relay([[
    local function told(what, ...) print(what .. ":", ...) end
    return {
      allocate = function(agent)
        agent.data = { of = agent.addr, visitors = 0 }
      end,
      visitor = function(conn, agents)
        local agent = agents[1]
        told("agents", #agents, conn.listen_port == agent.ports[1])
        agent.data.visitors = agent.data.visitors + 1
        conn.data = agent.data.of .. "/" .. agent.data.visitors
        relay.kv.incr("visitors:" .. agent.id)
        conn:tag("for", agent.data.of)
      end,
      open = function(conn)
        told("open", conn.data, conn.agent.data.of, conn.agent.conns)
      end,
      close = function(conn)
        told("close", conn.data, conn.bytes_in)
      end,
      agent_gone = function(agent)
        told("gone", agent.data.of, agent.data.visitors,
          relay.kv.get("visitors:" .. agent.id))
      end,
    }]])
  local one = typed.agent(relay, { from = "127.0.0.2", words = "name=web" })
  local two = typed.agent(relay, { from = "127.0.0.3", words = "name=web" })
  for i, agent in ipairs({ one, two, two }) do
    local visitor, data = agent:join()
    visitor:send(("x"):rep(i))
    visitor:shutdown()
    lu.assertEquals({ data:recv_all() }, { ("x"):rep(i), "eof" })
    data:shutdown()
    visitor:recv_all()
    relay:wait_log(("close: 127.0.0.%d/%d %d\n"):format(
      agent == one and 2 or 3, i == 3 and 2 or 1, i))
  end
  one:bye()
  two:bye()
  relay:wait_log("gone: 127.0.0.2 1 1\n")
  relay:wait_log("gone: 127.0.0.3 2 2\n")
  lu.assertEquals(policy.count(relay, "agents: 1 true\n"), 3)
  for _, of in ipairs({ "127.0.0.2/1 127.0.0.2", "127.0.0.3/1 127.0.0.3",
                        "127.0.0.3/2 127.0.0.3" }) do
    lu.assertEquals(policy.count(relay, ("open: %s 1\n"):format(of)), 1)
  end
  lu.assertEquals(policy.count(relay, "for=127.0.0.2\n"), 1)
  lu.assertEquals(policy.count(relay, "for=127.0.0.3\n"), 2)
end

return T
