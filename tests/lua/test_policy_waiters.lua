-- SPDX-License-Identifier: MIT
--
-- A hook that waits holds up nobody but who it is about.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")

local T = { limit = 60 }

local WAITERS <const> = 100
local PATIENT <const>, RELEASE <const> = "127.0.0.66", "127.0.0.67"

-- What a waiter's hook does until `go` is set.
local waits = {
  sleep = "while not go do relay.sleep(0.05) end",
  resolve = [[repeat assert(relay.resolve("localhost")) relay.sleep(0.02)
    until go]],
  coroutines = [[local wrapped = coroutine.wrap(function()
      while true do relay.sleep(0.1) coroutine.yield() end
    end)
    while not go do wrapped() end]],
}

local function waiters_of(agent)
  local waiters = {}
  for i = 1, WAITERS do
    waiters[i] = h.connect(agent, { from = PATIENT })
    waiters[i]:send("slow")
    waiters[i]:shutdown()
  end
  return waiters
end

for name, body in pairs(waits) do
  T["test_nobody_is_held_up_by_" .. name] = function()
    local relay, agent = policy.scene(([[local n, go = 0, false
      return { visitor = function(conn)
        if conn.addr == %q then go = true end
        if conn.addr ~= %q then return end
        n = n + 1
        if n == %d then print("all wait") end
        %s
      end }]]):format(RELEASE, PATIENT, WAITERS, body),
      { "--hook-visitor", "10m" })
    local live = h.connect(agent)
    local waiters = waiters_of(agent)
    relay:wait_log("all wait")
    for _ = 1, 200 do
      live:send("x")
      lu.assertEquals(live:recv_exact(1), "x")
    end
    for _ = 1, 20 do
      lu.assertEquals(policy.ask(agent, "quick"), "quick")
    end
    for i = 1, WAITERS do
      lu.assertFalse(waiters[i]:wait("r", 0), i)
    end
    h.connect(agent, { from = RELEASE }):close()
    for i = 1, WAITERS do
      lu.assertEquals(waiters[i]:recv_all(), "slow")
      waiters[i]:close()
    end
    live:close()
  end
end

-- Many that loop at once are cut one by one, and the bytes of others move in
-- between.
function T.test_hooks_that_loop_take_turns()
  local relay, agent = policy.scene(([[return { visitor = function(conn)
    if conn.addr == %q then while true do end end
  end }]]):format(PATIENT), { "--hook-visitor", "30s" })
  local live, loops = h.connect(agent), {}
  live:send("x")
  lu.assertEquals(live:recv_exact(1), "x")
  relay:kill("STOP")
  for i = 1, 60 do
    loops[i] = h.connect(agent, { from = PATIENT })
  end
  relay:kill("CONT")
  for _ = 1, 2 do
    live:send("x")
    lu.assertEquals(live:recv_exact(1), "x")
  end
  local cut = policy.count(relay, "visitor denied")
  for _, loop in ipairs(loops) do
    lu.assertEquals(select(2, loop:recv_all()), "reset")
    loop:close()
  end
  lu.assertEquals(policy.count(relay, "visitor denied"), #loops)
  lu.assertTrue(cut < #loops, cut)
  live:close()
end

return T
