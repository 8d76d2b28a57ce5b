-- SPDX-License-Identifier: MIT
--
-- Each whole policy of docs/scripting.md does what the page says of it; the
-- first is played by test_docs_scripting.lua. Policies are read by pages.lua.

local lu = require("luaunit")
local h = require("harness")
local pages = require("pages")
local policy = require("policy")
local real = require("real")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

-- ---- whole policies ---------------------------------------------------------

-- Denied so soon that connecting may already tell.
local function assert_denied(to, from)
  local visitor, why = sys.connect("127.0.0.1", to.port, { from = from })
  if visitor then
    visitor:send("hi")
    why = select(2, visitor:recv_all())
    visitor:close()
  end
  lu.assertEquals(why, "reset")
end

-- A visitor that stays, and has been served.
local function stay(agent, from)
  local visitor = h.connect(agent, { from = from })
  visitor:send("x")
  lu.assertEquals(visitor:recv_exact(1), "x")
  return visitor
end

local drivers = {}

local function three_at_a_time(relay, agent)
  local live = { stay(agent), stay(agent), stay(agent) }
  assert_denied(agent)
  pages.assert_served(agent, "127.0.0.9")
  live[1]:close()
  relay:wait_log("visitor closed[^\n]*bytes_in=1 ")
  h.wait_until("there is room again", function()
    return policy.ask(agent, "hi") == "hi"
  end)
  pages.close_all(live)
end

drivers["decides.lua"] = function()
  local relay, agent = pages.scene("decides.lua")
  three_at_a_time(relay, agent)
  relay:wait_log("reason=\"three are enough\"")
  relay:wait_log("info 127.0.0.1 got 1 bytes in %d+%.%d s: ")
end

drivers["readme.lua"] = function()
  three_at_a_time(pages.scene("readme.lua"))
end

drivers["waits.lua"] = function()
  local relay, agent = pages.scene("waits.lua")
  pages.assert_served(agent)
  assert_denied(agent, "127.0.0.9")
  relay:wait_log("not from the office")
end

-- The counts are still there after a reload: taking back would fail else.
drivers["remembers.lua"] = function()
  local relay, agent = pages.scene("remembers.lua")
  local live = stay(agent)
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  live:close()
  relay:wait_log("visitor closed")
  pages.assert_served(agent)
  lu.assertNotStrContains(relay:log(), "policy hook failed")
end

drivers["per-address.lua"] = function()
  local relay, agent = pages.scene("per-address.lua")
  local early = stay(agent, "127.0.0.8")
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  three_at_a_time(relay, agent)
  relay:wait_log("too many of one address")
  early:close()
end

-- Also where a script was in force before that did not count.
for _, name in ipairs { "readme.lua", "decides.lua", "remembers.lua",
  "per-address.lua" } do
  T["test_" .. name:gsub("%W", "_") .. "_after_another_script"] = function()
    local relay, agent = policy.scene("return {}")
    local live = stay(agent)
    h.write_file(relay.script, pages.fence("policy", name).text)
    for i = 1, 2 do
      relay:kill("HUP")
      h.wait_until("it is reloaded", function()
        return policy.count(relay, "policy reloaded") == i
      end)
    end
    live:close()
    relay:wait_log("visitor closed")
    pages.assert_served(agent)
    lu.assertNotStrContains(relay:log(), "policy hook failed")
  end
end

drivers["per-minute.lua"] = function()
  local _, agent = pages.scene("per-minute.lua")
  for _ = 1, 30 do
    pages.assert_served(agent)
  end
  assert_denied(agent)
  pages.assert_served(agent, "127.0.0.9")
end

drivers["deny-list.lua"] = function()
  local list = h.tmpdir() .. "/denied"
  h.write_file(list, "# enemies\n192.0.2.0/24\n::ffff:127.0.0.9 # here\n")
  local relay, agent = pages.scene("deny-list.lua",
    { ["/etc/relay/denied"] = list })
  pages.assert_served(agent)
  assert_denied(agent, "127.0.0.9")
  h.write_file(list, "")
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  pages.assert_served(agent, "127.0.0.9")
end

drivers["tiers.lua"] = function()
  local relay, agent = pages.scene("tiers.lua")
  pages.assert_served(agent)
  pages.expect_log(relay, "tiers")
  local began = sys.now()
  h.echo(agent, 60000)
  lu.assertTrue(sys.now() - began > 0.3, "no faster than its tier")
  local office = h.connect(agent, { from = "127.0.0.9" })
  h.pump({ { office, send = 60000, recv = 60000, fin = true, eof = true } })
  office:close()
  relay:wait_log("visitor closed[^\n]* tier=office")
end

drivers["own-ports.lua"] = function()
  local port = real.free_port()
  local relay = pages.relay("own-ports.lua", { ["8100"] = port })
  local web = h.start_echoserver(relay, { "--name", "web" })
  lu.assertEquals({ web.host, web.port }, { "web.example.org", port })
  lu.assertEquals(h.start_echoserver(relay).host, "localhost")
  local err = typed.agent(relay, { words = "name=web", refused = true }).err
  lu.assertEquals(err.reason, ("port %d is in use"):format(port))
end

drivers["ranges.lua"] = function()
  local relay = pages.relay("ranges.lua", { ["10.0.0.0/8"] = "127.0.0.9" })
  for _ = 1, 3 do
    local port = typed.agent(relay).port
    lu.assertTrue(port >= 9100 and port <= 9199, port)
    port = typed.agent(relay, { from = "127.0.0.9" }).port
    lu.assertTrue(port >= 9000 and port <= 9099, port)
  end
end

drivers["quota.lua"] = function()
  local relay, agent = pages.scene("quota.lua")
  h.echo(agent, 400)
  pages.assert_served(agent)
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  h.echo(agent, 400)
  h.wait_until("both were counted", function()
    return policy.count(relay, "visitor closed") == 3
  end)
  assert_denied(agent)
  relay:wait_log("the quota of the day is used up")
end

-- Who is there during a reload is counted as well.
function T.test_quota_of_a_reload()
  local relay, agent = pages.scene("quota.lua")
  local live = stay(agent)
  live:send(("x"):rep(600))
  lu.assertEquals(#live:recv_exact(600), 600)
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  live:close()
  relay:wait_log("visitor closed")
  assert_denied(agent)
end

drivers["maintenance.lua"] = function()
  local path = h.tmpdir() .. "/maintenance"
  local relay, agent = pages.scene("maintenance.lua",
    { ["/run/relay/maintenance"] = path, ["every(1,"] = "every(0.02," })
  local live = stay(agent)
  h.write_file(path, "")
  h.wait_until("it is closed", function()
    return policy.ask(agent, "hi") == ""
  end)
  relay:wait_log("reason=maintenance")
  live:send("x")
  lu.assertEquals(live:recv_exact(1), "x")
  live:close()
  os.remove(path)
  h.wait_until("it is open", function()
    return policy.ask(agent, "hi") == "hi"
  end)
end

drivers["hours.lua"] = function()
  local _, open = pages.scene("hours.lua", { ["8, 18"] = "0, 24" })
  pages.assert_served(open)
  local relay, closed = pages.scene("hours.lua", { ["8, 18"] = "24, 24" })
  assert_denied(closed)
  relay:wait_log("closed at night")
end

drivers["log-lines.lua"] = function()
  local relay, agent = pages.scene("log-lines.lua", nil,
    { "--log-level", "debug" })
  pages.assert_served(agent)
  relay:wait_log("\n%d%d:%d%d:%d%d 127%.0%.0%.1:%d+ %-> :" .. agent.port ..
    " 2/2 ended\n")
  lu.assertNotStrContains(relay:log(), "this is dropped")
  relay:wait_log("Z info address established ")
end

drivers["metrics.lua"] = function()
  local path = h.tmpdir() .. "/relay.prom"
  pages.relay("metrics.lua", { ["/var/lib/node_exporter/relay.prom"] = path })
  local text = h.wait_until("it is written", function()
    return io.open(path) and h.read_file(path)
  end)
  lu.assertStrContains(text, "relay_agents 0\n")
  lu.assertStrContains(text, "relay_bytes_in 0\n")
end

drivers["dynamic-dns.lua"] = function()
  local relay, agent = pages.scene("dynamic-dns.lua")
  pages.assert_served(agent)
  assert_denied(agent, "127.0.0.9")
  relay:wait_log("not from home")
  relay = pages.relay("dynamic-dns.lua", { ['"localhost"'] = '"x.invalid"' })
  relay:wait_log("warn x.invalid: ")
end

drivers["newest.lua"] = function()
  local relay = pages.relay("newest.lua")
  local old = h.start_echoserver(relay, { "--name", "a", expect = "any" })
  h.start_echoserver(relay, { "--name", "b" })
  h.start_echoserver(relay, { "--name", "a" })
  old:wait()
  relay:wait_log("agent gone[^\n]*reason=\"a newer one has come\"")
  lu.assertEquals(policy.count(relay, "agent gone"), 1)
end

drivers["who.lua"] = function()
  local relay, agent = pages.scene("who.lua", { ["every(10,"] = "every(0.05," })
  local live = stay(agent)
  relay:wait_log("info 127.0.0.1 at echo for 0 s: 1 in, 1 out\n")
  live:close()
end

drivers["too-long.lua"] = function()
  local relay, agent = pages.scene("too-long.lua",
    { ["8 * 3600"] = "0.1", ["return 60"] = "return 0.05" })
  local live = stay(agent)
  lu.assertEquals({ live:recv_all() }, { "", "reset" })
  live:close()
  relay:wait_log("visitor closed [^\n]*reason=\"here for too long\"")
end

drivers["ban.lua"] = function()
  local relay, agent = pages.scene("ban.lua")
  for _ = 1, 10 do
    pages.assert_served(agent)
  end
  assert_denied(agent)
  assert_denied(agent)
  relay:wait_log("warn 127.0.0.1 is banned for an hour")
  lu.assertEquals(policy.count(relay, "is banned for an hour"), 1)
  pages.assert_served(agent, "127.0.0.9")
end

pages.drive(T, drivers)

return T
