-- SPDX-License-Identifier: MIT
--
-- Agents killed or replaced while visitors come all the time: the address is
-- theirs again, whoever comes meanwhile waits and is served, and what was cut
-- is a reset at both ends. load.lua has the rules.
--
-- With RELAY_TEST_FULL=1 both are killed 50 times in each way of being known
-- again, else 8 times:
--   RELAY_TEST_FULL=1 ./dev test kill_agent

local lu = require("luaunit")
local kill_scene = require("kill_scene")

local T = { limit = 120 }

local KILLS <const> = os.getenv("RELAY_TEST_FULL") == "1" and 50 or 8
local agents = kill_scene.agents

local function expect_none_refused(counts)
  lu.assertEquals(counts.refused, 0)
end

-- Also where it dies again before it has said that it is back.
kill_scene.each(T, "test_killed_again_and_again", function(s)
  for i = 1, KILLS do
    s.load:turns(math.random(5, 40))
    for _, name in ipairs(agents) do
      s.load:kill(s[name])
    end
    s:expect_kept(agents[1 + i % 2])
    for _, name in ipairs(agents) do
      s[name] = s:start_agent(name)
      if i % 4 == 0 then
        s.load:turns(math.random(0, 20))
        s.load:kill(s[name])
        s[name] = s:start_agent(name)
      end
    end
    s:await("expose")
    s:await("echo")
  end
end, expect_none_refused)

-- A newcomer has the address at once, whether the former is alive or, as far as
-- the relay can see, dead.
kill_scene.each(T, "test_replaced_again_and_again", function(s)
  for i = 1, KILLS do
    local is_dead = i % 2 == 0
    s.load:turns(math.random(5, 40))
    for _, name in ipairs(agents) do
      local former = s[name]
      s.load:cut(function()
        if is_dead then
          former:kill("STOP")
          s.load:turns(5)
        end
        s[name] = s:start_agent(name)
        s:await(name)
      end)
      if is_dead then -- a sanitizer at its end would be disturbed by it
        former:kill("CONT")
      end
      s.load:await_end(former)
      lu.assertEquals({ former:wait() }, { "exit", 1 })
      lu.assertStrContains(former:log(), "replaced by a newer connection")
    end
  end
end, expect_none_refused)

return T
