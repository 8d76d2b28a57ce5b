-- SPDX-License-Identifier: MIT
--
-- The table of hooks, cell by cell: what each does when it is absent, returns
-- nothing, the wrong thing, fails, waits too long or never ends. What they are
-- called with is in test_policy_hooks.lua, and here what is left of it.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local typed = require("typed")

local T = { limit = 60, tearDown = typed.close_all }

-- ---- what may go wrong ------------------------------------------------------

-- Ways to end, with what the log says of it; `nil` is no way to fail.
local ways = {
  ["nil"] = { "return nil" },
  error = { "error('boom')", "boom" },
  type = { "return { {} }", "returned a table" },
  wait = { "relay.sleep(60)", "it waited too long" },
  cpu = { "while true do end", "of CPU time" },
}

local SHORT <const> = { "--hook-agent", "200ms", "--hook-visitor", "200ms" }

local function relay_with(script)
  return policy.relay(script, { table.unpack(SHORT) })
end

local function expect_log(relay, words)
  if words then
    h.wait_until("the log says " .. words, function()
      return relay:log():find(words, 1, true)
    end)
  end
end

-- ---- where it shows ---------------------------------------------------------

-- A way through each hook: what comes of it, by a script with that hook.
local outcomes = {}

local function agent_outcome(hook)
  return function(script)
    local relay = relay_with(script)
    local agent = typed.agent(relay, { either = true })
    return relay, agent.ok and "in" or agent.err.code, hook
  end
end

outcomes.auth = agent_outcome("auth")
outcomes.allocate = agent_outcome("allocate")

local function visitor_outcome(script)
  local relay = relay_with(script)
  local agent = h.start_echoserver(relay)
  local text, how = policy.ask(agent, "hello")
  return relay, text == "hello" and "served" or how
end

outcomes.visitor = visitor_outcome
outcomes.peek = visitor_outcome
outcomes.open = visitor_outcome
outcomes.close = visitor_outcome

function outcomes.agent_gone(script)
  local relay = relay_with(script)
  h.start_echoserver(relay):stop()
  local agent = h.start_echoserver(relay)
  return relay, policy.ask(agent, "hello") == "hello" and "served"
end

-- The first tick is the way; the second comes all the same.
function outcomes.tick(script)
  local relay = relay_with(script)
  relay:wait_log("tick 2")
  return relay, "goes on"
end

function outcomes.log(script)
  local relay = relay_with(script)
  h.start_echoserver(relay)
  expect_log(relay, "info address established agent=1 ")
  return relay, "as ever"
end

function outcomes.start(script)
  local result = h.run({ h.program("relay"), "0", "--script",
                         policy.write(script) })
  lu.assertStrMatches(result.stderr, "relay: [^\n]+\n")
  return { log = function() return result.stderr end },
    "exit " .. result.status .. result.stdout
end

local function reload_outcome(first, second)
  local relay = policy.relay(first)
  local agent = h.start_echoserver(relay)
  local line = policy.reload(relay, second, false)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  relay:wait_log("visitor closed [^\n]* by=first")
  return { log = function() return line end }, "stays"
end

local FIRST <const> = "visitor = function(conn) conn:tag('by', 'first') end"

outcomes["start of the next"] = function(script)
  return reload_outcome("return { " .. FIRST .. " }", script)
end

function outcomes.save(script)
  return reload_outcome((script:gsub("return {", "return { " .. FIRST .. ",",
    1)), "return {}")
end

function outcomes.stop(script)
  local relay = policy.relay(script)
  h.start_echoserver(relay):stop()
  relay:stop() -- which expects 0
  return relay, "exit 0"
end

-- ---- the table --------------------------------------------------------------

-- For each hook: what comes of it when it is absent, and of each way; a cell
-- is the outcome, with words for the log and a body of its own if need be.
-- `false`: that is tested elsewhere, or cannot be.
local hooks = {
  auth = { absent = "in", ["nil"] = { "denied", "auth returned nothing" },
           error = "denied", type = "denied",
           wait = { "denied", "the policy took too long" }, cpu = "denied" },
  allocate = { absent = "in", ["nil"] = "in", error = "port-refused",
               type = { "port-refused", "a table with the key" },
               wait = { "hook", "the policy took too long" },
               cpu = "port-refused" },
  visitor = { absent = "served", ["nil"] = "served", error = "reset",
              type = "reset", wait = { "reset", "reason=hook" },
              cpu = "reset" },
  peek = { absent = "reset", ["nil"] = "served", error = "reset",
           type = "reset", wait = { "reset", "reason=hook" }, cpu = "reset" },
  open = { absent = "served", ["nil"] = "served", error = "served",
           type = false, wait = false, cpu = "served" },
  close = { absent = "served", ["nil"] = "served", error = "served",
            type = false, wait = false, cpu = "served" },
  agent_gone = { absent = "served", ["nil"] = "served", error = "served",
                 type = false, wait = false, cpu = "served" },
  tick = { absent = false, ["nil"] = "goes on", error = "goes on",
           type = false, wait = "goes on", cpu = "goes on" },
  log = { absent = "as ever", ["nil"] = "as ever", error = "as ever",
          type = "as ever", wait = { "as ever", "cannot wait here" },
          cpu = "as ever" },
  start = { absent = false, ["nil"] = false, error = "exit 1", type = false,
            wait = "exit 1", cpu = "exit 1" },
  ["start of the next"] = { absent = false, ["nil"] = false, error = "stays",
                            type = false, wait = "stays", cpu = "stays" },
  save = { absent = false, ["nil"] = false, error = "stays",
           type = { "stays", "save returned a number", "return 5" },
           wait = "stays",
           cpu = "stays" },
  stop = { absent = "exit 0", ["nil"] = "exit 0", error = "exit 0",
           type = false, wait = "exit 0", cpu = "exit 0" },
}

-- What stands around a way of a hook.
local frames = {
  peek = "visitor = function(conn) conn:peek(2) end, peek = function() %s end",
  tick = [[tick = (function()
    local n = 0
    return function()
      n = n + 1
      if n == 1 then return 0.02 end
      if n == 2 then print("tick", n) end
      if n == 1 or n > 2 then return end
      %s
    end
  end)()]],
}

local function script_of(hook, body)
  local name = hook:match("^%a+_?%a*")
  local frame = frames[name] or name .. " = function() %s end"
  return "return { " .. frame:format(body) .. " }"
end

for hook, cells in pairs(hooks) do
  for way, cell in pairs(cells) do
    local body, words = table.unpack(ways[way] or {})
    local outcome = cell
    if type(cell) == "table" then
      outcome, words, body = cell[1], cell[2], cell[3] or body
    end
    T["test_" .. hook .. ": " .. way] = outcome and function()
      local script = way == "absent" and
        (hook == "peek" and "return { " .. frames.peek:match("^[^,]+") .. " }"
         or "return {}") or script_of(hook, body)
      local relay, got = outcomes[hook](script)
      lu.assertEquals(got, outcome)
      expect_log(relay, words)
    end or nil
  end
end

-- ---- what they are called with ----------------------------------------------

function T.test_what_an_agent_wants()
  local port = real.free_port()
  local relay = policy.relay([[return { allocate = function(agent, want)
    print("wants", agent.name, want.port, want.host, want.attempt)
    end }]])
  typed.agent(relay, { words = ("name=a port=%d host=relay.example"):format(
    port) })
  relay:wait_log(("wants a %d relay.example 1"):format(port))
  typed.agent(relay, { words = "name=b" })
  relay:wait_log("wants b nil nil 1")
end

-- It will be parked: there is nobody to serve it.
function T.test_a_visitor_while_the_agent_is_away()
  local relay, agent = policy.scene([[return {
    visitor = function(conn, agents) print("agents", #agents, conn.agent) end
  }]])
  agent:kill("KILL")
  agent:wait()
  relay:wait_log("agent gone")
  local visitor = h.connect(agent)
  relay:wait_log("agents 0 nil")
  visitor:close()
end

local function peek_relay()
  return policy.scene([[return {
    visitor = function(conn) conn:peek(5) end,
    peek = function(conn, bytes)
      print("peek", #bytes, conn.eof)
      if #bytes < 8 and not conn.eof then return 8 end
    end }]])
end

function T.test_peek_at_a_fin()
  local relay, agent = peek_relay()
  lu.assertEquals({ policy.ask(agent, "") }, { "", "eof" })
  relay:wait_log("peek 0 true")
  lu.assertEquals(policy.ask(agent, "long enough"), "long enough")
  relay:wait_log("peek 11 ")
end

-- Fewer bytes than it needs, and then no more.
function T.test_peek_that_needs_what_does_not_come()
  local relay, agent = peek_relay()
  local visitor = h.connect(agent)
  visitor:send("hello")
  relay:wait_log("peek 5 false")
  visitor:shutdown()
  lu.assertEquals({ visitor:recv_all() }, { "hello", "eof" })
  relay:wait_log("peek 5 true")
  visitor:close()
end

-- Whoever was chosen and is gone when it comes to it counts as nobody.
function T.test_a_chosen_agent_that_is_gone()
  local port = real.free_port()
  local relay = policy.relay(([[return {
    start = function() relay.listen { port = %d } end,
    allocate = function() return { port = %d, share = true } end,
    visitor = function(conn, agents)
      for _, agent in ipairs(agents) do
        if agent.name == "first" then
          print("chosen")
          repeat relay.sleep(0.01) until not agent.alive
          return agent
        end
      end
    end }]]):format(port, port))
  local first = h.start_echoserver(relay, { "--name", "first",
                                            expect = "any" })
  h.start_echoserver(relay, { "--name", "second" })
  local visitor = h.connect(port)
  visitor:send("hello")
  visitor:shutdown()
  relay:wait_log("chosen")
  first:stop()
  lu.assertEquals({ visitor:recv_all() }, { "hello", "eof" })
  visitor:close()
end

function T.test_open_and_close_once_each_in_order()
  local relay, agent = policy.scene([[return {
    visitor = function(conn) print("say visitor", conn.id) end,
    open = function(conn) print("say open", conn.id) end,
    close = function(conn) print("say close", conn.id) end,
    agent_gone = function(agent) print("say gone", agent.id) end }]])
  for _ = 1, 3 do
    lu.assertEquals(policy.ask(agent, "hello"), "hello")
  end
  agent:stop()
  relay:wait_log("say gone")
  local said, ids = {}, {}
  for word, id in relay:log():gmatch("say (%a+) (%d+)") do
    table.insert(said, word)
    ids[id] = (ids[id] or 0) + 1
  end
  lu.assertEquals(table.concat(said, " "), ("visitor open close "):rep(3) ..
    "gone")
  for _, count in pairs(ids) do
    lu.assertTrue(count == 3 or count == 1, count)
  end
end

function T.test_tick_comes_every_second()
  local relay = policy.relay([[local last
    return { tick = function(now)
      if last then print("after", now - last > 0.9 and now - last < 5) end
      last = now
    end }]])
  relay:wait_log("after true")
end

function T.test_what_save_gives_is_what_start_gets()
  local prev = [[return { start = function(prev) print("prev", prev,
    type(prev) == "table" and prev[1]) end %s }]]
  local relay = policy.relay(prev:format(""))
  relay:wait_log("prev nil false")
  for save, words in pairs({
    [""] = "prev nil false",
    [", save = function() end"] = "prev nil false",
    [", save = function() return { 7 } end"] = "prev table: 0x%x+ 7",
  }) do
    policy.reload(relay, prev:format(save))
    local _, before = relay:log():gsub(words, "")
    policy.reload(relay, "return { start = function(prev) print('prev', " ..
      "prev, type(prev) == 'table' and prev[1]) end }")
    lu.assertEquals(select(2, relay:log():gsub(words, "")), before + 1)
  end
end

return T
