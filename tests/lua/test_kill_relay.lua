-- SPDX-License-Identifier: MIT
--
-- A relay with --state killed while visitors come all the time: it listens on
-- its leases before it says that it listens, its agents return by themselves to
-- the same addresses, and what was cut is a reset at both ends. load.lua has
-- the rules.
--
-- With RELAY_TEST_FULL=1 it is killed 20 times in each way of being known
-- again, else 5 times:
--   RELAY_TEST_FULL=1 ./dev test kill_relay

local lu = require("luaunit")
local kill_scene = require("kill_scene")

local T = { limit = 120 }

local KILLS <const> = os.getenv("RELAY_TEST_FULL") == "1" and 20 or 5

-- Dies, and is back; from then on nobody is refused.
local function restart(s)
  s.load.down = true
  s.load:kill(s.relay)
  s.relay = s:start_relay()
  s:await_relay()
  s.load.down = false
end

-- Also where it dies again while its agents are coming back.
kill_scene.each(T, "test_killed_again_and_again", function(s)
  for i = 1, KILLS do
    s.load:turns(math.random(5, 40))
    restart(s)
    s:expect_kept(kill_scene.agents[1 + i % 2])
    if i % 4 == 0 then
      s.load:turns(math.random(0, 20))
      restart(s)
    end
    s:await("expose")
    s:await("echo")
  end
end, function(counts)
  lu.assertTrue(counts.refused > 0) -- else it was not down at all
end)

return T
