-- SPDX-License-Identifier: MIT
--
-- The cases of policy_cases.lua, each with relay.testing and with the engine
-- of the relay: the stand-in does what the engine does, to the word.

local lu = require("luaunit")
local h = require("harness")

package.path = h.source .. "lua/?.lua;" .. package.path

local cases = require("policy_cases")
local policy = require("policy")

local T = { limit = 60 }

for name in pairs(cases.play({}, "")) do
  T["test_stand_in: " .. name] = function()
    cases.play(require("relay.testing"), h.tmpdir())[name]()
  end
  T["test_engine: " .. name] = function()
    local result = h.run({ h.build .. "/tests/engine",
      h.source .. "tests/engine/run.lua", h.source, h.tmpdir(), name })
    lu.assertEquals({ result.status, result.stderr }, { 0, "" })
  end
end

-- ---- what is the stand-in's alone -------------------------------------------

local function load_stand_in(script, options)
  return require("relay.testing").load(policy.write(script), options)
end

function T.test_modules_of_the_test()
  local script = [[return { auth = function()
    local tcp = relay.tcp()
    print(tcp, require("socket").tcp(), require("cjson.fake").null)
    return true end }]]
  local testing = require("relay.testing")
  local w = load_stand_in(script)
  lu.assertStrContains(w.call("auth", testing.agent()).error,
    "policy.lua:2: relay.testing has no sockets: give T.load a module 'socket'")
  w = load_stand_in(script, { modules = {
    ["cjson.fake"] = { null = "null" },
    socket = function(relay)
      return { tcp = function()
        relay.sleep(1)
        return "a fake"
      end }
    end } })
  local verdict = w.call("auth", testing.agent())
  lu.assertTrue(verdict.pending)
  w.advance(2)
  lu.assertEquals(verdict, { allow = true })
  lu.assertEquals(w.logs[1].msg, "a fake a fake null")
end

function T.test_what_a_test_sees_and_sets()
  local testing = require("relay.testing")
  local w = load_stand_in([[return {
    save = function() return { 5 } end,
    tick = function() return relay.kv.get("next") end,
    visitor = function(conn)
      conn.data = relay.stats().pairs
      relay.kv.set("seen", conn.addr, 10) end,
    close = function(conn) relay.sleep(conn.duration) end }]])
  lu.assertEquals(w.call("save"), { saved = { 5 } })
  w.kv.next = 0.5
  lu.assertEquals(w.call("tick"), { next = 0.5 })
  w.stats.pairs = 7
  local conn = testing.conn()
  lu.assertNil(w.box(conn))
  w.call("visitor", conn, {})
  lu.assertEquals(w.box(conn).data, 7)
  lu.assertEquals(w.kv.seen, "192.0.2.1")
  w.advance(10)
  lu.assertNil(w.kv.seen)
  conn.duration = 1.5
  local verdict = w.call("close", conn)
  w.advance(1.4)
  lu.assertTrue(verdict.pending)
  w.advance(0.1)
  lu.assertEquals(verdict, {})
  lu.assertNil(w.box(conn))
  lu.assertEquals(w.now(), 1011.5)
end

-- Another file, and hooks called while a reload is under way.
function T.test_reload_of_another_file()
  local testing = require("relay.testing")
  local w = load_stand_in("return { visitor = function() return false, " ..
    "'old' end, save = function() relay.sleep(1) return {} end, " ..
    "tick = function() relay.reload() end }")
  w.call("tick")
  w.advance(0.5)
  local during = w.call("visitor", testing.conn(), {})
  local news = w.call("open", testing.conn())
  lu.assertTrue(during.pending and news.pending)
  w.advance(0.6)
  lu.assertEquals({ during, news }, { { deny = true, reason = "old" }, {} })
  local other = policy.write(
    "return { visitor = function() return false, 'new' end }",
    h.tmpdir() .. "/other.lua")
  lu.assertTrue(w.reload(other))
  lu.assertEquals(w.call("visitor", testing.conn(), {}).reason, "new")
  lu.assertEquals({ w.reload("/no/such.lua") },
    { nil, "/no/such.lua: No such file or directory" })
end

-- What both of these are given by the same Lua, the relay's side of conns, is
-- held against a relay.
local CORE = [[return {
  visitor = function(conn, agents)
    local function tell(...) print("told", ...) end
    for i = 1, 8 do conn:tag("t" .. i, i) end
    tell(conn:tag("t9", 1))
    tell(conn:tag("t8", ("v"):rep(252)))
    tell(conn:tag("t8", ("v"):rep(253)))
    tell(conn:tag("", 1))
    tell(conn:limit { rate_in = 1 << 30 }, agents[1]:limit { rate_in = 1e9 })
    tell(conn.alive, #relay.conns(), #relay.agents(), conn.agent)
    tell(relay.listen { port = agents[1].ports[1] })
    tell(conn:peek(5))
  end,
  peek = function(conn, bytes)
    print("told", bytes, conn.eof, pcall(conn.peek, conn, 1))
  end,
  open = function(conn)
    print("told", conn.agent.name, conn:close("enough"), conn.alive)
  end,
  close = function(conn) print("told", conn.reason, conn.alive) end }]]

function T.test_the_relay_itself_answers_so()
  local relay, agent = policy.scene(CORE)
  policy.ask(agent, "hello")
  relay:wait_log("told enough false")
  local expected = {}
  for line in relay:log():gmatch(" info (told[^\n]*)") do
    table.insert(expected, line)
  end

  local testing = require("relay.testing")
  local w = testing.load(relay.script, { taken = { agent.port } })
  local web = testing.agent { name = "echo", port = agent.port }
  local conn = testing.conn()
  w.call("auth", web)
  w.call("visitor", conn, { web })
  w.call("peek", conn, "hello")
  conn.agent = web
  w.call("open", conn)
  w.call("close", conn)
  local told = {}
  for _, record in ipairs(w.logs) do
    table.insert(told, record.msg)
  end
  lu.assertEquals(told, expected)
  lu.assertEquals(#told, 11)
end

return T
