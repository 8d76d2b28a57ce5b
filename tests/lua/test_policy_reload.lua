-- SPDX-License-Identifier: MIT
--
-- Reload: the next script takes over with what the last one saved, or the last
-- one stays; nobody is cut off, nothing is missed.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local sys = h.sys

local T = { limit = 120 }

function T.test_the_next_takes_over()
  local relay, agent = policy.scene([[return {
    visitor = function() return true end,
    save = function() return { n = 1, f = 0.5, s = "x\0y", b = true,
      t = { 1, 2, { "deep" } } } end,
    stop = function(why) print("one stops:", why) end }]])
  local live = h.connect(agent)
  live:send("a")
  lu.assertEquals(live:recv_exact(1), "a")
  policy.reload(relay, [[return {
    start = function(prev)
      print("got", math.type(prev.n), prev.f, #prev.s, prev.b, prev.t[3][1])
    end,
    visitor = function() return false end,
    close = function(conn) print("close", conn.bytes_in, conn.data) end }]])
  relay:wait_log("got integer 0.5 3 true deep")
  relay:wait_log("one stops: reload")
  lu.assertEquals({ policy.ask(agent) }, { "", "reset" })
  live:send("b")
  lu.assertEquals(live:recv_exact(1), "b")
  live:shutdown()
  live:recv_all()
  live:close()
  relay:wait_log("close 2 nil")
end

function T.test_by_the_script_itself()
  local relay = policy.relay([[return {
    start = function(prev) print("start", prev and prev.n) end,
    tick = function() if not relay.kv.get("done") then
      relay.kv.set("done", 1) print("reload", relay.reload()) end end,
    save = function() return { n = 7 } end }]])
  relay:wait_log("start 7", 5)
end

local first = [[return { visitor = function(conn) conn:tag("by", "first") end,
  %s }]]
local bad = {
  ["syntax ="] = "policy.lua:1:",
  ["return { visitr = print }"] = "did you mean 'visitor'",
  ["return 5"] = "must return a table",
  ["error('at load')"] = "at load",
  ["while true do end"] = "of CPU time",
  ["return { start = function() error('at start') end }"] = "at start",
  ["return { start = function() relay.sleep(60) end }"] =
    "it waited too long",
  ["return { start = function() relay.sleep(0.1) error('late') end }"] =
    "late",
  ["return { options = { max_agents = 3 } }"] = "its options differ",
  ["return { start = function() relay.listen { port = TAKEN } end }"] =
    "address already in use",
}

for script, words in pairs(bad) do
  T["test_stays: " .. script] = function()
    local taken = assert(sys.listen({ host = "::" }))
    local relay, agent = policy.scene(first:format(""))
    local line = policy.reload(relay, (script:gsub("TAKEN", taken:port())),
      false)
    lu.assertStrContains(line, words)
    lu.assertEquals(policy.ask(agent, "hello"), "hello")
    relay:wait_log("visitor closed [^\n]*by=first")
    taken:close()
  end
end

for save, words in pairs({
  ["save = function() error('in save') end"] = "in save",
  ["save = function() return 5 end"] = "save returned a number",
  ["save = function() return { print } end"] = "a function in it",
  ["save = function() local t = {} t.t = t return t end"] = "without end",
  ["save = function() relay.sleep(60) end"] = "it waited too long",
}) do
  T["test_stays: " .. save] = function()
    local relay, agent = policy.scene(first:format(save))
    lu.assertStrContains(policy.reload(relay, "return {}", false), words)
    lu.assertEquals(policy.ask(agent, "hello"), "hello")
    relay:wait_log("visitor closed [^\n]*by=first")
  end
end

-- Events between save and swap are told to the one in force afterwards.
function T.test_events_queue_meanwhile()
  local script = [[local n = 0 return {
    start = function(prev)
      n = prev and prev.n or 0
      if prev then relay.sleep(0.5) end
    end,
    save = function() return { n = n } end,
    visitor = function(conn) n = n + 1 print("visitor", n) end,
    close = function() n = n - 1 print("close", n) end }]]
  local relay, agent = policy.scene(script)
  local live = h.connect(agent)
  live:send("a")
  live:recv_exact(1)
  relay:kill("HUP")
  sys.sleep(0.1)
  live:shutdown()
  live:recv_all()
  live:close()
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  relay:wait_log("policy reloaded")
  h.wait_until("all were told", function()
    return policy.count(relay, "info close 0") == 2 and
      policy.count(relay, "info visitor 1") == 2
  end)
end

function T.test_a_verdict_under_way_is_of_the_old_one()
  local relay, agent = policy.scene([[return { visitor = function(conn)
    print("asked")
    while not relay.kv.get("go") do relay.sleep(0.02) end
    conn:tag("by", "old") end }]], { "--hook-visitor", "60s" })
  local visitor = h.connect(agent)
  visitor:send("hello")
  visitor:shutdown()
  relay:wait_log("asked")
  policy.reload(relay, [[return {
    start = function() relay.kv.set("go", 1) end,
    close = function(conn) print("new one closes", conn.bytes_in) end }]])
  lu.assertEquals(visitor:recv_all(), "hello")
  visitor:close()
  relay:wait_log("new one closes 5")
  relay:wait_log("visitor closed [^\n]*by=old")
end

-- Whom the old one denies after the swap has no end that the new one is told
-- of, which may have met them all the same.
function T.test_whom_the_old_one_denies_is_forgotten()
  local relay, agent = policy.scene([[return { visitor = function(conn)
    print("asked") relay.sleep(conn.addr == "127.0.0.66" and 60 or 0.5)
    return false end }]], { "--hook-visitor", "60s" })
  local denied = h.connect(agent)
  local leaves = h.connect(agent, { from = "127.0.0.66" })
  h.wait_until("both are asked", function()
    return policy.count(relay, "info asked") == 2
  end)
  policy.reload(relay, [[
    local met = setmetatable({}, { __mode = "k" })
    return {
      start = function()
        for _, conn in ipairs(relay.conns()) do met[conn] = true end
      end,
      tick = function()
        local count = 0
        collectgarbage()
        for _ in pairs(met) do count = count + 1 end
        print("remembered:", count)
        return 0.05
      end }]])
  relay:wait_log("remembered: [12]")
  lu.assertEquals(select(2, denied:recv_all()), "reset")
  relay:wait_log("remembered: 1")
  leaves:reset()
  relay:wait_log("remembered: 0")
  denied:close()
end

function T.test_kv_and_listeners_are_adopted()
  local port = real.free_port()
  local script = ([[return {
    start = function()
      relay.listen { port = %d }
      print("run", relay.kv.incr("runs"))
    end,
    allocate = function() return { port = %d, share = true } end }]])
    :format(port, port)
  local relay, agent = policy.scene(script)
  lu.assertEquals(agent.port, port)
  policy.reload(relay, script)
  relay:wait_log("run 2")
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  agent:stop()
  policy.reload(relay, "return {}")
  h.wait_until("the port is closed", function()
    return not sys.connect("127.0.0.1", port)
  end)
end

-- Good and bad scripts in turn, with live pairs and visitors coming.
function T.test_many_reloads_under_load()
  local good = [[local n = { now = 0, all = 0 } return {
    start = function(prev) n = prev or n end,
    save = function() return n end,
    visitor = function(conn)
      n.now, n.all = n.now + 1, n.all + 1
      if conn.id %% 3 == 0 then relay.sleep(0.01) end
    end,
    close = function() n.now = n.now - 1 print("count", n.now, n.all) end,
    -- %d
  }]]
  local relay, agent = policy.scene(good:format(0), { "--log-level", "info" })
  local live, total = {}, 0
  for i = 1, 50 do
    live[i] = h.connect(agent)
    live[i]:send("x")
    lu.assertEquals(live[i]:recv_exact(1), "x")
    total = total + 1
  end
  local bads = { "return {", "return { start = error }", "return { a = 1 }" }
  for i = 1, 40 do
    policy.write(i % 4 == 0 and bads[i // 4 % 3 + 1] or good:format(i),
      relay.script)
    relay:kill("HUP")
    for _ = 1, 5 do
      lu.assertEquals(policy.ask(agent, "hello"), "hello")
      total = total + 1
    end
  end
  for i = 1, 50 do
    live[i]:send("y")
    live[i]:shutdown()
    lu.assertEquals(live[i]:recv_all(), "y")
    live[i]:close()
  end
  relay:wait_log(("count 0 %d"):format(total), 20)
end

return T
