-- SPDX-License-Identifier: MIT
--
-- Many visitors that come and are killed at any moment, as are the agents they
-- came for, under a policy that waits, peeks, closes and reloads: `close` is
-- told exactly once for each that was let in, and the collector has been
-- everywhere in between.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local sys = h.sys

local T = { limit = 300 }

local VISITORS <const> = 10000
local AT_A_TIME <const> = 30
local RELOADS <const>, KILLS <const> = 20, 10

local script = [[
  collectgarbage("incremental", 1, 1000, 1)
  local open, told = {}, { let_in = 0, closed = 0 }
  return {
    start = function(prev)
      if prev then open, told = prev.open, prev.told end
      relay.listen { port = PORT }
    end,
    save = function() return { open = open, told = told } end,
    allocate = function() return { port = PORT, share = true } end,
    visitor = function(conn, agents)
      local id = conn.id
      conn.data = { id }
      if id % 5 == 0 then relay.sleep(0.002) end
      if id % 7 == 0 then return false, "seven" end
      if id % 3 == 0 then conn:peek(1) end
      if id % 11 == 0 then relay.spawn(function()
        relay.sleep(0.001)
        pcall(conn.close, conn, "eleven")
      end) end
      conn:tag("id", id)
      collectgarbage()
    end,
    peek = function(conn, bytes)
      if conn.id % 2 == 0 then relay.sleep(0.001) end
      if #bytes > 0 and #bytes < 3 then return 3 end
    end,
    open = function(conn)
      if conn.id % 13 == 0 and conn.alive then conn:close("thirteen") end
    end,
    close = function(conn)
      if open[conn.id] then print("TWICE", conn.id) end
      open[conn.id] = true
      told.closed = told.closed + 1
      if conn.id % 4 == 0 then relay.sleep(0.001) end
      assert(conn.bytes_in >= 0)
      collectgarbage("step")
    end,
    tick = function()
      local stats = relay.stats()
      print("told", told.closed, "of", stats.visitors_total -
        (stats.refused_total), stats.visitors)
      return 0.1
    end,
  }
]]

-- One of the agents dies, and another takes its place.
local function replace(agents, relay)
  local victim = table.remove(agents, 1)
  victim:kill("KILL")
  victim:wait()
  table.insert(agents, h.start_echoserver(relay, { expect = "any" }))
end

local function leave(visitor)
  if math.random() < 0.6 then
    visitor:reset()
  end
  visitor:close()
end

-- Waits until as many were told of as were let in, and returns how many. Data
-- connections of agents that were killed count among those refused, too.
local function await_told(relay)
  local told, all
  h.wait_until("each was told of", function()
    for a, b, left in relay:log():gmatch("told (%d+) of (%d+) (%d+)\n") do
      told, all = left == "0" and tonumber(a) or nil, tonumber(b)
    end
    return told and told == all + policy.count(relay, "connection refused")
  end, 30)
  return told
end

function T.test_close_once_for_each()
  local port = real.free_port()
  local relay = policy.relay((script:gsub("PORT", port)))
  local agents, live = {}, {}
  for i = 1, 2 do
    agents[i] = h.start_echoserver(relay, { expect = "any" })
  end
  math.randomseed(7)
  for i = 1, VISITORS do
    local visitor, why = sys.connect("127.0.0.1", port)
    if visitor then
      visitor:send("hello")
      table.insert(live, visitor)
    else
      lu.assertEquals(why, "reset") -- denied as it came
    end
    if #live > AT_A_TIME then
      leave(table.remove(live, math.random(#live)))
    end
    if i % (VISITORS // RELOADS) == 0 then
      relay:kill("HUP")
    end
    if i % (VISITORS // KILLS) == 0 then
      replace(agents, relay)
    end
  end
  for _, visitor in ipairs(live) do
    leave(visitor)
  end
  local told = await_told(relay)
  lu.assertTrue(told > VISITORS / 4, told)
  lu.assertEquals(policy.count(relay, "TWICE"), 0)
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
  lu.assertTrue(policy.count(relay, "policy reloaded") >= 3)
end

return T
