-- SPDX-License-Identifier: MIT
--
-- Example policies about agents: who may be one, from where, at which port and
-- how fast.

local lu = require("luaunit")
local example = require("example")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local sys = h.sys
local typed = require("typed")

local T = { limit = 60 }

function T.tearDown()
  typed.close_all()
end

-- An agent that is not let in; the log tells why, the agent is not told.
local function refused(relay, words, reason, options)
  options = options or {}
  options.words, options.refused = words, true
  local err = typed.agent(relay, options).err
  lu.assertNotStrContains(err.reason or "", reason)
  h.wait_until("the log tells: " .. reason, function()
    return relay:log():find("agent refused [^\n]*" ..
      reason:gsub("%p", "%%%0") .. '"\n')
  end)
  return err
end

-- ---- cidr_acl ---------------------------------------------------------------

local BANNED = '"192.0.2.0/24"'

function T.test_cidr_acl()
  local relay = example.relay("cidr_acl", { change = {
    ['"127.0.0.0/8"'] = '"127.0.0.0/28"', [BANNED] = '"127.0.0.64/26"' } })
  local agent = h.start_echoserver(relay)
  for _, from in ipairs({ "127.0.0.1", "127.0.0.63", "127.0.0.128" }) do
    example.ask(relay, agent.port, { from = from })
  end
  for _, from in ipairs({ "127.0.0.64", "127.0.0.127" }) do
    example.denied(relay, agent.port, "a banned network", { from = from })
  end
  local err = refused(relay, "name=far", "an agent from a strange network",
    { from = "127.0.0.16" })
  lu.assertEquals({ err.code, err.final }, { "denied", "yes" })
end

function T.test_cidr_acl_bans_who_is_there()
  local relay = example.relay("cidr_acl", { change = {} })
  local agent = h.start_echoserver(relay)
  local banned = example.visit(agent.port, { from = "127.0.0.9" })
  local other = example.visit(agent.port, { from = "127.0.0.8" })
  example.reload(relay, { [BANNED] = '"127.0.0.9"' })
  lu.assertEquals({ banned:recv_all() }, { "", "reset" })
  relay:wait_log('visitor closed [^\n]*reason="a network that is banned now"')
  other:send("still")
  lu.assertEquals(other:recv_exact(5), "still")
  banned:close()
  other:close()
end

-- ---- agent_names ------------------------------------------------------------

function T.test_agent_names()
  local relay = example.relay("agent_names", {
    change = { ['"10.2.0.7"'] = '"127.0.0.2"' } })
  local web = typed.agent(relay, { words = "name=web" })
  typed.agent(relay, { words = "name=database", from = "127.0.0.2" })
  refused(relay, "name=database", "'database' is not at home")
  refused(relay, "name=web", "'web' is not at home", { from = "127.0.0.3" })
  refused(relay, "name=mail", "no agent is called 'mail'")
  local err = refused(relay, "port=0", "no agent is called ''")
  lu.assertEquals({ err.code, err.final }, { "denied", "yes" })
  -- Whoever comes back with its ticket is judged like a newcomer.
  web:close()
  relay:wait_log("agent gone")
  typed.agent(relay, { words = "name=web resume=" .. web.resume })
end

function T.test_agent_names_that_are_struck_off()
  local relay = example.relay("agent_names", { change = {} })
  local web = typed.agent(relay, { words = "name=web" })
  local visitor = web:join()
  example.reload(relay, { ['"127.0.0.1", "::1", '] = "" })
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  lu.assertEquals(web:expect("BYE", "GONE").retry, "never")
  relay:wait_log("agent gone [^\n]*reason=\"'web' is not at home\"")
  refused(relay, "name=web", "'web' is not at home")
end

-- ---- port_ranges ------------------------------------------------------------

-- A relay whose team "web" has `count` ports from a free one on.
local function ranges(count, changes)
  local low = real.free_port()
  changes = changes or {}
  changes["8100, 8199"] = ("%d, %d"):format(low, low + count - 1)
  local relay = example.relay("port_ranges", { change = changes })
  relay.change = changes
  return relay, low
end

local function port_of(relay, name, options)
  options = options or {}
  options.words = "name=" .. name .. (options.more or "")
  local agent = typed.agent(relay, options)
  return agent.port, agent
end

local function assert_full(relay, name)
  local err = typed.agent(relay, { words = "name=" .. name,
                                   refused = true }).err
  lu.assertEquals({ err.code, err.reason },
    { "port-refused", "all ports of the range are taken" })
end

function T.test_port_ranges()
  local relay, low = ranges(3)
  local _, one = port_of(relay, "web/one")
  local port, two = port_of(relay, "web/two", { more = " port=8250" })
  lu.assertEquals({ one.port, port }, { low, low + 1 })
  -- The name keeps it: after an orderly end, over a reload, after a kill.
  one:bye()
  relay:wait_log("address released port=" .. low)
  lu.assertEquals(port_of(relay, "web"), low + 2)
  example.reload(relay)
  local again
  port, again = port_of(relay, "web/one")
  lu.assertEquals(port, low)
  again.socket:reset()
  relay:wait_log("agent gone [^\n]*reason=ECONNRESET")
  lu.assertEquals(port_of(relay, "web/one"), low)
  -- Agents of one name share it, and with nobody else.
  lu.assertEquals(port_of(relay, "web/two"), two.port)
  assert_full(relay, "web/three")
  lu.assertEquals(typed.agent(relay, { words = "name=webs/one",
    refused = true }).err.reason, "no ports for 'webs/one'")
end

function T.test_port_ranges_that_a_stranger_is_in()
  local relay, low = ranges(3)
  local strangers = { sys.listen({ host = "::", port = low }),
                      sys.listen({ host = "::", port = low + 1 }) }
  lu.assertEquals(port_of(relay, "web/one"), low + 2)
  assert_full(relay, "web/two")
  strangers[1]:close()
  lu.assertEquals(port_of(relay, "web/two"), low)
  strangers[2]:close()
end

function T.test_port_ranges_that_change()
  local relay, low = ranges(1)
  local _, one = port_of(relay, "web/one")
  one:bye()
  relay:wait_log("address released port=" .. low)
  local other = real.free_port()
  example.reload(relay, { ["8100, 8199"] = ("%d, %d"):format(other, other) })
  lu.assertEquals(port_of(relay, "web/one"), other)
end

-- Who is there loses nothing, however long; nor does who has just left.
function T.test_port_ranges_forget_who_is_away_longest()
  local relay, low = ranges(2, { ["24 * 3600"] = "3" })
  local _, one = port_of(relay, "web/one")
  local _, two = port_of(relay, "web/two")
  sys.sleep(3.1)
  assert_full(relay, "web/three")
  one:bye()
  relay:wait_log("address released port=" .. low)
  assert_full(relay, "web/three")
  two:bye()
  relay:wait_log("address released port=" .. low + 1)
  h.wait_until("one is forgotten", function()
    return typed.agent(relay, { words = "name=web/three", either = true })
      .port == low
  end)
  lu.assertEquals(port_of(relay, "web/two"), low + 1)
  assert_full(relay, "web/one")
end

-- ---- bandwidth_tiers --------------------------------------------------------

local KIB, MIB = 1 << 10, 1 << 20
local SLOW = { ["each = 1 * MIB, all = 4 * MIB"] =
               "each = MIB // 16, all = MIB // 8" }
-- So slow that what the test sends would not arrive while it waits.
local AS_GOOD_AS_NONE = { ["each = 1 * MIB, all = 4 * MIB"] =
                          "each = 512, all = 4 * MIB" }

-- Seconds that so many bytes take to an echo and back.
local function time_of(port, count, ends)
  local sockets, began = {}, sys.now()
  local pump = {}
  for i = 1, ends or 1 do
    sockets[i] = h.connect(port)
    pump[i] = { sockets[i], send = count, recv = count, fin = true, eof = true }
  end
  h.pump(pump)
  for _, socket in ipairs(sockets) do
    socket:close()
  end
  return sys.now() - began
end

function T.test_bandwidth_tiers()
  local relay = example.relay("bandwidth_tiers", { change = SLOW })
  local free = example.agent(relay, "blog")
  local gold = example.agent(relay, "shop")
  -- 64 KiB at 64 KiB/s, less the burst of an eighth of a second.
  lu.assertTrue(time_of(free.port, 64 * KIB) > 0.8)
  relay:wait_log("visitor closed [^\n]*tier=free")
  time_of(gold.port, 32 * MIB) -- at the other's speed it would not come
  relay:wait_log("visitor closed [^\n]*tier=gold")
  -- Four at 64 KiB/s each would take half a second, all at 128 KiB/s take one.
  lu.assertTrue(time_of(free.port, 32 * KIB, 4) > 0.8)
  -- A visitor more is not a burst more: 144 KiB, where each has 8 at once.
  local began = sys.now()
  for _ = 1, 24 do
    time_of(free.port, 6 * KIB)
  end
  lu.assertTrue(sys.now() - began > 0.7, sys.now() - began)
end

function T.test_bandwidth_tiers_change_for_who_is_there()
  local relay = example.relay("bandwidth_tiers", { change = AS_GOOD_AS_NONE })
  local agent = example.agent(relay, "blog")
  local visitor = example.visit(agent.port)
  example.reload(relay, {})
  h.pump({ { visitor, send = 256 * KIB, recv = 256 * KIB, fin = true,
             eof = true } })
  visitor:close()
  relay:wait_log("visitor closed [^\n]*tier=free")
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
end

return T
