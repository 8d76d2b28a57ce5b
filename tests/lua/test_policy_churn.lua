-- SPDX-License-Identifier: MIT
--
-- Many visitors that come and are killed at any moment, under a policy that
-- waits, peeks, closes and reloads: `close` is told exactly once for each that
-- was let in, and the collector has been everywhere in between.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local sys = h.sys

local T = { limit = 120 }

local script = [[
  collectgarbage("incremental", 1, 1000, 1)
  local open, told = {}, { let_in = 0, closed = 0 }
  return {
    start = function(prev)
      if prev then open, told = prev.open, prev.told end
    end,
    save = function() return { open = open, told = told } end,
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

function T.test_close_once_for_each()
  local relay, agent = policy.scene(script)
  math.randomseed(7)
  local count = h.sanitized and 1000 or 4000
  local live = {}
  for i = 1, count do
    local visitor = sys.connect("127.0.0.1", agent.port)
    if visitor then
      visitor:send("hello")
      table.insert(live, visitor)
    end
    if #live > 30 then
      local old = table.remove(live, math.random(#live))
      if math.random() < 0.6 then
        old:reset()
      end
      old:close()
    end
    if i % (count // 8) == 0 then
      relay:kill("HUP")
    end
  end
  for _, visitor in ipairs(live) do
    visitor:close()
  end
  local told, all
  h.wait_until("each was told of", function()
    for a, b, left in relay:log():gmatch("told (%d+) of (%d+) (%d+)\n") do
      told, all = left == "0" and a or nil, b
    end
    return told and told == all
  end, 20)
  lu.assertTrue(tonumber(told) > count / 4, told)
  lu.assertEquals(policy.count(relay, "TWICE"), 0)
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
  lu.assertTrue(policy.count(relay, "policy reloaded") >= 3)
end

return T
