-- SPDX-License-Identifier: MIT
--
-- Many agents with many visitors each, all at the same time, every byte of
-- every one compared; and visitors that come and go in great numbers.

local lu = require("luaunit")
local h = require("harness")
local scene = require("scene")
local sys = h.sys

local T = { limit = 120 }

local MIB <const> = 1 << 20

-- The agents of one relay, each with a service of its own.
local function start_agents(relay, count, pool)
  local agents = {}
  for i = 1, count do
    local listener = assert(sys.listen())
    local agent = h.start_expose(relay, listener, { "--name", "agent" .. i,
      "--pool", pool, wait = false })
    agents[i] = { agent = agent, listener = listener }
  end
  for _, one in ipairs(agents) do
    one.agent:wait_address()
  end
  return agents
end

-- Ends of the pump for one visitor; no two streams are alike.
local function add_ends(ends, visitor, served, count)
  local seed = #ends + 1
  table.insert(ends, { visitor, send = count, send_seed = seed, recv = count,
    recv_seed = seed + 1, fin = true, eof = true })
  table.insert(ends, { served, send = count, send_seed = seed + 1,
    recv = count, recv_seed = seed, fin = true, eof = true })
end

local function close_all(ends)
  for _, one in ipairs(ends) do
    one[1]:close()
  end
end

h.each_mode(T, "test_20_agents_with_50_visitors_each", function()
  local relay, pool = h.start_relay(), 4
  local agents = start_agents(relay, 20, pool)
  local ends = {}
  for _ = 1, 50 do
    for _, one in ipairs(agents) do
      local visitor, served = h.join(one.agent, one.listener)
      add_ends(ends, visitor, served, MIB)
    end
  end
  local result = h.pump(ends)
  lu.assertEquals(result.received, 2 * 20 * 50 * MIB)
  close_all(ends)
  scene.wait_sockets(relay, 1 + 20 * (2 + pool))
  for _, one in ipairs(agents) do
    scene.wait_sockets(one.agent, 1 + pool)
  end
end)

-- Visitors that come all at once are all served, in whatever order.
scene.each(T, "test_a_crowd_at_once", {}, function(s)
  local visitors, served, ends = {}, {}, {}
  for i = 1, 500 do
    visitors[i] = s:visit()
    visitors[i]:send(("%d\n"):format(i))
  end
  for _ = 1, 500 do
    local socket = s:keep(assert(s.listener:accept()))
    local number = math.tointeger(assert(socket:recv_line()))
    lu.assertNil(served[number])
    served[number] = socket
  end
  for i = 1, 500 do
    add_ends(ends, visitors[i], served[i], 20000)
  end
  h.pump(ends)
end)

-- Short visits one after the other; the programs' sockets and pipes are no
-- more afterwards than after the first hundred.
scene.each(T, "test_one_after_the_other", {}, function(s)
  local function visits(count)
    for i = 1, count do
      local visitor, served = s:join()
      visitor:send("question")
      visitor:shutdown()
      lu.assertEquals({ served:recv_all() }, { "question", "eof" })
      served:send(("answer %d"):format(i))
      served:shutdown()
      lu.assertEquals({ visitor:recv_all() },
        { ("answer %d"):format(i), "eof" })
      visitor:close()
      served:close()
    end
    s:settle(0)
  end
  visits(100)
  local relay_fds, agent_fds = s.relay:fds(), s.agent:fds()
  visits(900)
  s.relay:wait_fds(relay_fds)
  s.agent:wait_fds(agent_fds)
end)

return T
