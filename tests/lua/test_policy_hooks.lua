-- SPDX-License-Identifier: MIT
--
-- Each hook through a real relay: called when it should be, with what it
-- should be, and its verdict obeyed; and what nil, an error, a wrong type and
-- silence beyond the deadline mean.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

local function refused(relay, options)
  options = options or {}
  options.refused = true
  return typed.agent(relay, options).err
end

local function assert_denied(agent)
  local text, how = policy.ask(agent)
  lu.assertEquals({ text, how }, { "", "reset" })
end

local function assert_served(agent)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
end

-- ---- start, stop, tick, log -----------------------------------------------

function T.test_start_and_stop()
  local relay = policy.relay([[return {
    start = function(prev) print("started with", prev) end,
    stop = function(why) print("stopped:", why) end }]])
  relay:wait_log("started with nil")
  relay:stop()
  lu.assertStrContains(relay:log(), "stopped: exit")
end

function T.test_start_that_waits()
  local began = sys.now()
  policy.relay([[return { start = function() relay.sleep(0.3) end }]])
  lu.assertTrue(sys.now() - began >= 0.3)
end

local function fails_to_start(script, words)
  local path = policy.write(script)
  local result = h.run({ h.program("relay"), "0", "--script", path })
  lu.assertEquals({ result.status, result.stdout }, { 1, "" })
  lu.assertStrContains(result.stderr, words)
end

function T.test_start_that_fails()
  fails_to_start("return { start = function() error('no luck') end }",
    "policy.lua:1: no luck")
end

function T.test_start_that_takes_too_long()
  fails_to_start("return { start = function() relay.sleep(60) end }",
    "it waited too long")
end

function T.test_tick()
  local relay = policy.relay([[local n = 0
    return { tick = function(now)
      n = n + 1
      print("tick", n, math.type(now))
      return 0.02
    end }]])
  relay:wait_log("tick 5 float", 5)
end

function T.test_tick_that_waits_or_fails()
  local relay = policy.relay([[local n = 0
    return { tick = function()
      n = n + 1
      if n == 1 then relay.sleep(0.1) return 0.02 end
      if n == 2 then error("tick two") end
      print("tick", n)
    end }]])
  relay:wait_log("tick two", 5)
  relay:wait_log("tick 3", 5)
end

function T.test_log()
  local relay = policy.relay([[return { log = function(event)
    if event.msg == "dropped" then return false end
    if event.msg == "made" then return "<" .. event.level .. ">" end
    if event.msg == "bad" then error("in log") end
    if event.msg == "type" then return {} end
    if event.msg == "address established" then
      return "agent " .. event.fields.agent
    end
  end,
  start = function()
    for _, m in ipairs { "dropped", "made", "bad", "type", "plain" } do
      relay.log("warn", m)
    end
  end }]])
  local agent = h.start_echoserver(relay)
  agent:stop()
  relay:wait_log("agent gone")
  local log = relay:log()
  lu.assertNotStrContains(log, "dropped")
  lu.assertStrMatches(log, ".*\n?<warn>\n.*")
  lu.assertStrMatches(log, ".*warn bad\n.*")
  lu.assertStrMatches(log, ".*warn type\n.*")
  lu.assertStrMatches(log, ".*warn plain\n.*")
  lu.assertStrMatches(log, ".*in log.*")
  lu.assertStrMatches(log, ".*log returned a table.*")
  lu.assertStrMatches(log, ".*\nagent %d+\n.*")
end

function T.test_log_cannot_wait()
  local relay = policy.relay([[return { log = function()
    relay.sleep(1) end, start = function() print("x") end }]])
  relay:wait_log("relay.sleep cannot wait here")
end

-- ---- auth -----------------------------------------------------------------

function T.test_auth()
  local relay = policy.relay([[return { auth = function(agent, cred)
    print("auth", agent, agent.name, agent.addr, cred.id, #agent.ports)
    if agent.name == "good" then return true, "owner" end
    return false, "not today"
  end }]])
  typed.agent(relay, { words = "name=good" })
  local err = refused(relay, { words = "name=bad" })
  lu.assertEquals({ err.code, err.final }, { "denied", "yes" })
  lu.assertNotStrContains(err.reason or "", "not today")
  relay:wait_log("auth agent %d+ good 127.0.0.1 nil 0")
  relay:wait_log("agent refused[^\n]*not today")
end

function T.test_auth_nil_denies()
  local relay = policy.relay("return { auth = function() end }")
  lu.assertEquals(refused(relay).code, "denied")
end

function T.test_auth_error_denies()
  local relay = policy.relay("return { auth = function() error('x') end }")
  lu.assertEquals(refused(relay).code, "denied")
  relay:wait_log("policy hook failed hook=auth [^\n]*policy.lua:1: x")
end

function T.test_auth_wrong_type_denies()
  local relay = policy.relay("return { auth = function() return 1 end }")
  lu.assertEquals(refused(relay).code, "denied")
  relay:wait_log("auth returned a number")
end

function T.test_auth_waits()
  local relay = policy.relay([[return { auth = function(agent)
    relay.sleep(0.2) return agent.name == "good" end }]])
  typed.agent(relay, { words = "name=good" })
  lu.assertEquals(refused(relay, { words = "name=bad" }).code, "denied")
end

function T.test_auth_too_late()
  local relay = policy.relay([[return { auth = function(agent)
    relay.sleep(60) return true end }]], { "--hook-agent", "200ms" })
  lu.assertEquals(refused(relay).code, "denied")
end

function T.test_auth_closes_the_agent()
  for _, wait in ipairs({ "", "relay.sleep(0.05)" }) do
    local relay = policy.relay([[return { auth = function(agent)
      ]] .. wait .. [[ agent:close("shut") relay.sleep(1) return true
      end, agent_gone = function() print("told") end }]])
    lu.assertEquals(refused(relay).code, "denied")
    relay:wait_log("shut")
    lu.assertNotStrContains(relay:log(), "told")
  end
end

-- ---- allocate -------------------------------------------------------------

function T.test_allocate()
  local port = real.free_port()
  local relay = policy.relay(([[return { allocate = function(agent, want)
    print("allocate", agent.name, want.port, want.attempt)
    if agent.name == "port" then return %d end
    if agent.name == "table" then return { host = "relay.example" } end
    if agent.name == "no" then return false, "no room for you" end
  end }]]):format(port))
  lu.assertEquals(typed.agent(relay, { words = "name=port" }).port, port)
  lu.assertEquals(typed.agent(relay, { words = "name=table" }).ok.host,
    "relay.example")
  typed.agent(relay, { words = "name=nil" })
  local err = refused(relay, { words = "name=no" })
  lu.assertEquals({ err.code, err.reason },
    { "port-refused", "no room for you" })
  relay:wait_log("allocate port nil 1")
end

function T.test_allocate_is_asked_again()
  local listener = assert(sys.listen({ host = "::" }))
  local relay = policy.relay(([[return { allocate = function(agent, want)
    print("attempt", want.attempt)
    if want.attempt < 3 then return %d end
  end }]]):format(listener:port()))
  typed.agent(relay)
  relay:wait_log("attempt 3")
  listener:close()
end

function T.test_allocate_failures_refuse()
  for script, words in pairs({
    ["error('x')"] = "policy.lua:1: x",
    ["return 'x'"] = "allocate returned a string",
    ["return 70000"] = "allocate returned 70000",
    ["return 1.5"] = "allocate returned 1.5",
    ["return { prot = 1 }"] = "did you mean 'port'",
    ["return false, {}"] = "the reason is a string",
    ["coroutine.yield(1)"] = "a hook cannot yield",
  }) do
    local relay = policy.relay(
      "return { allocate = function() " .. script .. " end }")
    lu.assertEquals(refused(relay).code, "port-refused")
    h.wait_until(words, function()
      return relay:log():find(words, 1, true)
    end)
    relay:stop()
  end
end

-- That is nobody's no: the agent may come again.
function T.test_allocate_too_late_is_not_final()
  local relay = policy.relay([[return { allocate = function()
    relay.sleep(60) end }]], { "--hook-agent", "100ms" })
  local err = refused(relay)
  lu.assertEquals({ err.code, err.final }, { "hook", "no" })
end

-- ---- visitor --------------------------------------------------------------

function T.test_visitor()
  local relay, agent = policy.scene([[return { visitor = function(conn, agents)
    print("visitor", math.type(conn.id), conn.addr, conn.port > 0,
      conn.listen_port, #agents, agents[1].name, conn.alive, conn.bytes_in,
      conn.reason, conn.agent, conn.eof)
  end }]])
  assert_served(agent)
  relay:wait_log(("visitor integer 127.0.0.1 true %d 1 echo true 0 nil nil " ..
    "false"):format(agent.port))
end

local verdicts = {
  ["return"] = true,
  ["return nil"] = true,
  ["return true"] = true,
  ["return agents[1]"] = true,
  ["relay.sleep(0.02) return agents[1]"] = true,
  ["return false"] = "by policy",
  ["return false, 'go away'"] = "go away",
  ["relay.sleep(0.02) return false, 'go away'"] = "go away",
  ["return 1"] = "visitor returned a number",
  ["return 'x'"] = "visitor returned a string",
  ["return conn"] = "visitor returned a userdata",
  ["return false, {}"] = "the reason is a string",
  ["relay.sleep(0.02) return {}"] = "visitor returned a table",
  ["error('boom')"] = "policy.lua:1: boom",
  ["error({})"] = "table",
  ["error()"] = "nil",
  ["relay.sleep(0.02) error('boom')"] = "policy.lua:1: boom",
  ["relay.sleep(60)"] = "hook",
  ["conn:close('out') return true"] = "out",
  ["conn:close('out') relay.sleep(60)"] = "out",
  ["relay.sleep(0.02) conn:close('out')"] = "out",
  ["agents[1]:close('bye') return nil"] = "bye",
}

for body, expect in pairs(verdicts) do
  T["test_visitor: " .. body] = function()
    local relay, agent = policy.scene("return { visitor = " ..
      "function(conn, agents) " .. body .. " end, close = function(conn)" ..
      " print('told of', conn) end }",
      { "--hook-visitor", "200ms" })
    if body:find("agents[1]:close", 1, true) then
      agent.expect = "any"
      assert_denied(agent)
      return
    elseif expect == true then
      assert_served(agent)
      relay:wait_log("told of conn")
    else
      assert_denied(agent)
      h.wait_until(expect, function()
        return relay:log():find(expect, 1, true)
      end)
      relay:wait_log("visitor closed")
      lu.assertNotStrContains(relay:log(), "told of conn")
    end
  end
end

function T.test_visitor_leaves_while_asked()
  local relay, agent = policy.scene([[
    local open = setmetatable({}, { __mode = "k" })
    return { visitor = function(conn)
      local guard <close> = setmetatable({}, { __close = function()
        print("guard closed", conn.alive, pcall(function()
          return conn.addr end))
      end })
      print("asked")
      relay.sleep(60)
    end, close = function() print("never") end }]],
    { "--hook-visitor", "50s" })
  local visitor = h.connect(agent)
  relay:wait_log("asked")
  visitor:reset()
  relay:wait_log("guard closed false false")
  lu.assertNotStrContains(relay:log(), "never")
end

-- ---- open, close, agent_gone ----------------------------------------------

function T.test_open_and_close()
  local relay, agent = policy.scene([[local last return {
    visitor = function(conn) conn.data = { "mine" } conn:tag("k", 1) end,
    open = function(conn)
      print("open", conn.data[1], conn.agent.name, conn.agent.conns)
      last = conn
    end,
    close = function(conn)
      print("close", conn == last, conn.data[1], conn.bytes_in,
        conn.bytes_out, math.type(conn.duration), conn.reason, conn.alive,
        pcall(conn.close, conn))
      relay.sleep(0.02)
      print("still", conn.bytes_in)
      relay.spawn(function()
        print("after", last.alive, last.data[1], tostring(last),
          pcall(function() return last.addr end))
      end)
    end }]])
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  relay:wait_log("open mine echo 1")
  relay:wait_log("close true mine 5 5 float ended false false " ..
    "[^\n]*connection is closed")
  relay:wait_log("still 5")
  relay:wait_log("after false mine conn %d+ false [^\n]*connection is closed")
  relay:wait_log("visitor closed [^\n]* k=1")
end

function T.test_close_is_told_of_every_end()
  local relay, agent = policy.scene([[return {
    close = function(conn) print("close:", conn.reason) end }]])
  local visitor = h.connect(agent)
  visitor:send("x")
  visitor:recv_exact(1)
  visitor:reset()
  relay:wait_log("close: ECONNRESET")
  visitor = h.connect(agent)
  visitor:send("x")
  visitor:recv_exact(1)
  agent:stop()
  h.wait_until("both were told", function()
    return policy.count(relay, "close:") == 2
  end)
  visitor:close()
end

function T.test_agent_gone()
  local relay, agent = policy.scene([[return { agent_gone =
    function(agent, why)
      print("gone", agent.name, agent.addr, agent.alive, why)
    end }]])
  agent:stop()
  relay:wait_log("gone echo 127.0.0.1 false EOF")
end

function T.test_errors_in_news_are_logged()
  local relay, agent = policy.scene([[return {
    open = function() error("in open") end,
    close = function() error("in close") end,
    agent_gone = function() error("in gone") end,
    stop = function() error("in stop") end }]])
  assert_served(agent)
  agent:stop()
  relay:wait_log("hook=agent_gone[^\n]*in gone")
  relay:stop()
  for _, words in ipairs({ "hook=open error=[^\n]*in open[^\n]*traceback=",
                           "hook=close error=[^\n]*in close",
                           "hook=stop error=[^\n]*in stop" }) do
    lu.assertStrMatches(relay:log(), ".*" .. words .. ".*")
  end
end

function T.test_identical_errors_are_logged_once()
  local relay, agent = policy.scene(
    "return { visitor = function() error('again') end }")
  for _ = 1, 20 do
    assert_denied(agent)
  end
  lu.assertEquals(policy.count(relay, "policy hook failed hook="), 1)
end

-- A pair outlives its agent's control connection, and is its agent's again once
-- that is back.
function T.test_close_tells_the_agent_that_came_back()
  local relay = policy.relay([[return {
    auth = function(agent) print("auth", agent.id) return true end,
    close = function(conn) print("by", conn.agent and conn.agent.id) end }]])
  local first = typed.agent(relay)
  local visitor, data = first:join()
  visitor:send("x")
  lu.assertEquals(data:recv(), "x")
  typed.agent(relay, { words = "resume=" .. first.resume })
  local id = relay:log():match("auth %d+.*auth (%d+)")
  visitor:close()
  data:close()
  relay:wait_log("by " .. id)
end

-- ---- peek -----------------------------------------------------------------

local function peek_scene(body, extra)
  return policy.scene("return { visitor = function(conn) conn:peek(" ..
    (extra or "5") .. ") end, peek = function(conn, bytes) " .. body ..
    " end, close = function(conn) print('close', conn.reason) end }")
end

function T.test_peek()
  local relay, agent = peek_scene("print('peek', bytes, conn.eof)")
  assert_served(agent)
  relay:wait_log("peek hello false")
end

function T.test_peek_needs_more()
  local relay, agent = peek_scene(
    "print('peek', #bytes) if #bytes < 8 then return 8 end")
  local visitor = h.connect(agent)
  visitor:send("hello")
  relay:wait_log("peek 5")
  visitor:send("world")
  visitor:shutdown()
  lu.assertEquals(visitor:recv_all(), "helloworld")
  relay:wait_log("peek 10")
  visitor:close()
end

function T.test_peek_of_silence()
  local relay, agent = peek_scene("print('peek', #bytes)", "0.1")
  local visitor = h.connect(agent)
  relay:wait_log("peek 0")
  visitor:send("late")
  visitor:shutdown()
  lu.assertEquals(visitor:recv_all(), "late")
  visitor:close()
end

function T.test_peek_denies()
  for body, words in pairs({
    ["return false, 'ugly'"] = "ugly",
    ["return 3"] = "peek needs 3 bytes",
    ["return 5000"] = "peek needs 5000 bytes",
    ["return 'x'"] = "peek returned a string",
    ["error('in peek')"] = "in peek",
    ["relay.sleep(0.01) return false, 'ugly'"] = "ugly",
    ["conn:close('out')"] = "out",
  }) do
    local relay, agent = peek_scene(body)
    assert_denied(agent)
    h.wait_until(words, function()
      return relay:log():find(words, 1, true)
    end)
    relay:wait_log("info close [^\n]+")
    lu.assertEquals(policy.count(relay, "info close "), 1)
    relay:stop()
    agent.expect = "any"
  end
end

function T.test_no_peek_hook_no_peeking()
  local relay, agent = policy.scene(
    "return { visitor = function(conn) conn:peek(1) end }")
  assert_denied(agent)
  relay:wait_log("the policy has no hook 'peek'")
end

return T
