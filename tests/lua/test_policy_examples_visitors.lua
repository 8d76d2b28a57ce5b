-- SPDX-License-Identifier: MIT
--
-- Example policies about visitors: how many, how much, how fast, when, and
-- after which knock.

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

local function close_all(visitors)
  for _, visitor in ipairs(visitors) do
    visitor:close()
  end
end

-- Visitors that are let in and do not end.
local function stay(port, count, options)
  local visitors = {}
  for i = 1, count do
    visitors[i] = example.visit(port, options)
  end
  return visitors
end

local function assert_no_failure(relay)
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
end

-- ---- per_ip_limits ----------------------------------------------------------

local MANY = "too many connections of one address"

function T.test_per_ip_limits_at_a_time()
  local relay = example.relay("per_ip_limits", { change = {
    ["AT_A_TIME = 20"] = "AT_A_TIME = 3" } })
  local agent = h.start_echoserver(relay)
  local live = stay(agent, 3)
  example.denied(relay, agent.port, MANY)
  example.ask(relay, agent.port, { from = "127.0.0.2" })
  example.reload(relay)
  example.denied(relay, agent.port, MANY)
  -- However one ends, it makes room for just one.
  live[1]:reset()
  h.wait_until("there is room again", function()
    return policy.ask(agent, "hello") == "hello"
  end)
  live[1] = nil
  live[1] = example.visit(agent)
  example.denied(relay, agent.port, MANY)
  agent:stop()
  relay:wait_log("address released")
  agent = h.start_echoserver(relay)
  close_all(live)
  close_all(stay(agent, 3))
  example.assert_empty(relay, "open", "return { open = open }")
  assert_no_failure(relay)
end

function T.test_per_ip_limits_in_a_minute()
  local relay = example.relay("per_ip_limits", { change = {
    ["A_MINUTE = 120"] = "A_MINUTE = 4" } })
  local agent = h.start_echoserver(relay)
  for _ = 1, 4 do
    example.ask(relay, agent.port)
  end
  example.reload(relay)
  example.denied(relay, agent.port, "too many connections in a minute")
  example.ask(relay, agent.port, { from = "127.0.0.2" })
end

function T.test_per_ip_limits_of_time()
  local relay = example.relay("per_ip_limits", { change = {
    ["IDLE = 300"] = "IDLE = 0.2" } })
  local agent = h.start_echoserver(relay)
  local visitor = example.visit(agent)
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  visitor:close()
  relay:wait_log("visitor closed [^\n]*reason=ETIMEDOUT")
end

-- One that another script let in was never counted.
function T.test_per_ip_limits_over_another_script()
  local relay = example.relay("per_ip_limits", { change = {
    ["AT_A_TIME = 20"] = "AT_A_TIME = 1" } })
  local agent = h.start_echoserver(relay)
  policy.reload(relay, "return {}")
  local live = stay(agent, 2)
  example.reload(relay, { ["AT_A_TIME = 20"] = "AT_A_TIME = 1" })
  local counted = example.visit(agent)
  close_all(live)
  h.wait_until("both have ended", function()
    return policy.count(relay, "visitor closed") == 2
  end)
  assert_no_failure(relay)
  counted:close()
end

-- ---- knock ------------------------------------------------------------------

-- A relay, the port of its door, and the three of its knock.
local function door(changes)
  local port, ports = real.free_port(), {}
  for i = 1, 3 do
    ports[i] = real.free_port()
  end
  changes = changes or {}
  changes["DOOR = 7000"] = "DOOR = " .. port
  changes["{ 7003, 7001, 7002 }"] = ("{ %d, %d, %d }"):format(
    table.unpack(ports))
  local relay = example.relay("knock", { change = changes })
  local agent = h.start_echoserver(relay)
  lu.assertEquals(agent.port, port)
  return relay, port, ports
end

local function knock(relay, ports, options)
  for _, port in ipairs(ports) do
    example.denied(relay, port, "a knock", options)
  end
end

local CLOSED = "the door is closed"

function T.test_knock()
  local relay, port, ports = door()
  local a, b, c = table.unpack(ports)
  for _, wrong in ipairs({ {}, { a }, { a, b }, { c, b, a }, { b, c },
                           { a, b, a, c }, { a, c, b } }) do
    knock(relay, wrong)
    example.denied(relay, port, CLOSED)
  end
  -- Half of it, a reload, the other half; and another address between.
  knock(relay, { a, a, b })
  knock(relay, { a, b }, { from = "127.0.0.2" })
  example.reload(relay)
  knock(relay, { c })
  relay:wait_log("the door is open for 127.0.0.1\n")
  example.ask(relay, port)
  example.ask(relay, port)
  example.denied(relay, port, CLOSED, { from = "127.0.0.2" })
end

function T.test_knock_too_slow_and_door_closes_again()
  local relay, port, ports = door({ ["HURRY = 10"] = "HURRY = 3",
                                    ["OPEN = 30"] = "OPEN = 3" })
  knock(relay, { ports[1], ports[2] })
  sys.sleep(3.1)
  knock(relay, { ports[3] })
  example.denied(relay, port, CLOSED)
  knock(relay, ports)
  local live = example.visit(port)
  h.wait_until("the door is closed again", function()
    return select(2, policy.ask({ port = port })) == "reset"
  end)
  live:send("still")
  lu.assertEquals(live:recv_exact(5), "still")
  live:close()
end

-- ---- tarpit -----------------------------------------------------------------

function T.test_tarpit()
  local relay = example.relay("tarpit", { change = {
    ["A_MINUTE = 60"] = "A_MINUTE = 2", ["HOLD = 60"] = "HOLD = 3",
    ["PLACES = 200"] = "PLACES = 2" } })
  local agent = h.start_echoserver(relay)
  local function visits_at_once(count)
    local visitors = {}
    for i = 1, count do
      visitors[i] = h.connect(agent)
      visitors[i]:send("hello")
    end
    return visitors
  end
  example.ask(relay, agent.port)
  example.ask(relay, agent.port)
  local began = sys.now()
  local held = visits_at_once(2)
  example.denied(relay, agent.port, "too fast, and the tarpit is full")
  example.ask(relay, agent.port, { from = "127.0.0.2" })
  lu.assertEquals({ held[1]:recv_all() }, { "", "reset" })
  lu.assertEquals({ held[2]:recv_all() }, { "", "reset" })
  lu.assertTrue(sys.now() - began >= 2.9)
  h.wait_until("both were told of", function()
    return policy.count(relay, 'reason="too fast"\n') == 2
  end)
  close_all(held)
  -- Those who give up leave their places.
  held = visits_at_once(2)
  example.denied(relay, agent.port, "too fast, and the tarpit is full")
  held[1]:reset()
  held[2]:reset()
  h.wait_until("both have left", function()
    return policy.count(relay, "reason=ECONNRESET") == 2
  end)
  example.denied(relay, agent.port, "too fast")
  assert_no_failure(relay)
end

-- ---- maintenance ------------------------------------------------------------

local function maintained(changes)
  local file = h.tmpdir() .. "/flag"
  changes = changes or {}
  changes['FILE = "/run/relay.maintenance"'] = ('FILE = "%s"'):format(file)
  local relay = example.relay("maintenance", { change = changes })
  return relay, h.start_echoserver(relay), file
end

local function begin(relay, file)
  local before = policy.count(relay, "maintenance begins")
  h.write_file(file, "new disks\nsecond line\n")
  h.wait_until("maintenance begins", function()
    return policy.count(relay, "maintenance begins") > before
  end)
end

function T.test_maintenance()
  local relay, agent, file = maintained()
  local live = example.visit(agent)
  begin(relay, file)
  local early = h.connect(agent)
  early:send("hello")
  lu.assertEquals({ early:recv(0.3) }, { nil, "timeout" })
  live:send("still")
  lu.assertEquals(live:recv_exact(5), "still")
  os.remove(file)
  lu.assertEquals(early:recv_exact(5), "hello")
  relay:wait_log("maintenance ends")
  example.ask(relay, agent.port)
  early:close()
  live:close()
end

function T.test_maintenance_turns_away()
  local relay, agent, file = maintained({ ["PATIENCE = 20"] = "PATIENCE = 3",
    ["PLACES = 100"] = "PLACES = 1" })
  begin(relay, file)
  local first = h.connect(agent)
  example.denied(relay, agent.port, "maintenance: new disks")
  lu.assertFalse(first:wait("r", 0))
  lu.assertEquals({ first:recv_all() }, { "", "reset" })
  first:close()
  h.wait_until("both were told of", function()
    return policy.count(relay, 'reason="maintenance: new disks"') == 2
  end)
  -- One that gives up makes room for the next to wait.
  first = h.connect(agent)
  example.denied(relay, agent.port, "maintenance: new disks")
  first:reset()
  h.wait_until("there is a place again", function()
    local began = sys.now()
    policy.ask(agent)
    return sys.now() - began >= 2.9
  end)
  os.remove(file)
  relay:wait_log("maintenance ends")
  example.ask(relay, agent.port)
  assert_no_failure(relay)
end

-- Who waited in the script of before is let in at the end, or is turned away
-- when that script has had its time.
function T.test_maintenance_over_a_reload()
  local relay, agent, file = maintained({ ["PLACES = 100"] = "PLACES = 1" })
  local function await_full()
    example.denied(relay, agent.port, "maintenance: new disks")
  end
  begin(relay, file)
  local early = h.connect(agent)
  early:send("hello")
  await_full()
  example.reload(relay)
  lu.assertEquals({ early:recv(0.3) }, { nil, "timeout" })
  os.remove(file)
  lu.assertEquals(early:recv_exact(5), "hello")
  early:close()
  begin(relay, file)
  early = h.connect(agent)
  await_full()
  example.reload(relay)
  lu.assertEquals({ early:recv_all(h.seconds(30)) }, { "", "reset" })
  early:close()
  relay:wait_log('visitor denied [^\n]*"its policy was replaced meanwhile"')
  lu.assertEquals(policy.count(relay, "maintenance begins"), 2)
end

-- ---- quota ------------------------------------------------------------------

local USED_UP = "the quota of today is used up"

local function move(port, count)
  local visitor = h.connect(port)
  h.pump({ { visitor, send = count, recv = count, fin = true, eof = true } })
  visitor:close()
end

function T.test_quota()
  local relay = example.relay("quota", { change = { ["10 << 30"] = "100000" } })
  local shop = example.agent(relay, "shop")
  local blog = example.agent(relay, "blog")
  -- Each byte counts twice, in and out, and no more often: some are counted
  -- in a tick, of which nothing tells, the rest after a reload.
  local live = example.visit(shop)
  h.pump({ { live, send = 20000, recv = 20000 } })
  sys.sleep(1.2)
  example.reload(relay)
  live:shutdown()
  live:recv_all()
  live:close()
  move(shop.port, 20000)
  move(shop.port, 9980)
  h.wait_until("three have ended", function()
    return policy.count(relay, "visitor closed") == 3
  end)
  live = example.visit(shop) -- 99 980 with this one
  example.ask(relay, shop.port)
  example.ask(relay, shop.port)
  lu.assertEquals({ live:recv_all() }, { "", "reset" })
  live:close()
  relay:wait_log('visitor closed [^\n]*reason="' .. USED_UP .. '"')
  example.denied(relay, shop.port, USED_UP)
  example.ask(relay, blog.port)
  -- Nor does coming back help.
  shop:stop()
  relay:wait_log("agent gone")
  shop = example.agent(relay, "shop")
  example.denied(relay, shop.port, USED_UP)
  example.assert_empty(relay, "live", "return { live = live }")
  assert_no_failure(relay)
end

function T.test_quota_of_who_goes_on_and_on()
  local relay = example.relay("quota", { change = { ["10 << 30"] = "100000" } })
  local shop = example.agent(relay, "shop")
  local visitor = h.connect(shop)
  local sent = 0
  while visitor:send(("x"):rep(5000)) and visitor:recv_exact(5000) do
    sent = sent + 5000
    sys.sleep(0.02)
    lu.assertTrue(sent < 2000000, "it was never cut off")
  end
  lu.assertTrue(sent >= 50000 - 5000, sent)
  visitor:close()
  relay:wait_log('visitor closed [^\n]*reason="' .. USED_UP .. '"')
end

return T
