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
