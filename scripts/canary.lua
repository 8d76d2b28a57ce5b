-- SPDX-License-Identifier: MIT
--
-- A few per cent of the visitors try the new version: they go to the agent
-- named "canary", all others to the other agents of the port. When a few of
-- its connections in a row end in failure before it has sent a byte, it gets
-- no more for a while.
--
--   relay 8080 --script scripts/canary.lua
--   expose relay.example 8080 3000 --name stable
--   expose relay.example 8080 3001 --name canary
--
-- To change: the numbers. Counts and the pause are kept over a reload (SIGHUP).

local relay = require "relay"

local PORT = 8443
local SHARE = 5 -- per cent
local FAILURES = 3 -- in a row
local PAUSE = 300 -- seconds

-- `served` holds the ids of conns that the canary has.
local state = { visitors = 0, failures = 0, served = {} }

local function is_turn_of_canary()
  state.visitors = state.visitors + 1
  return state.visitors * SHARE % 100 < SHARE and not relay.kv.get("paused")
end

return {
  start = function(prev)
    relay.listen { port = PORT }
    state = prev and prev.state or state
  end,

  save = function()
    return { state = state }
  end,

  allocate = function()
    return PORT
  end,

  visitor = function(conn, agents)
    local canaries, others = {}, {}
    for _, agent in ipairs(agents) do
      table.insert(agent.name == "canary" and canaries or others, agent)
    end
    if #canaries > 0 and is_turn_of_canary() then
      state.served[conn.id] = true
      return canaries[1]
    end
    if #others > 0 then
      return others[1 + conn.id % #others]
    end
    -- Nobody else is there, or nobody at all: the relay takes what comes.
  end,

  -- Here it is known who serves; it need not be the one that was chosen.
  open = function(conn)
    local agent = conn.agent
    if agent then
      state.served[conn.id] = agent.name == "canary" or nil
    end
  end,

  close = function(conn)
    if not state.served[conn.id] then
      return
    end
    state.served[conn.id] = nil
    if conn.bytes_out > 0 or conn.reason == "ended" then
      state.failures = 0
      return
    end
    state.failures = state.failures + 1
    if state.failures >= FAILURES then
      relay.log("warn", "the canary pauses: %d failures, %s", state.failures,
        conn.reason)
      relay.kv.set("paused", 1, PAUSE)
      state.failures = 0
    end
  end,
}
