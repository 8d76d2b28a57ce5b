-- SPDX-License-Identifier: MIT
--
-- Agents have a tier, which says how fast each visitor may be, and how fast
-- all visitors of the agent together.
--
--   relay 8080 --script scripts/bandwidth_tiers.lua
--   expose relay.example 8080 3000 --name shop
--
-- To change: the tiers and who has which. A reload (SIGHUP) puts new rates
-- into force for those who are there, too.

local relay = require "relay"

local MIB <const> = 1 << 20

-- Bytes per second, each way.
local tiers = {
  free = { each = 1 * MIB, all = 4 * MIB },
  gold = { each = 50 * MIB, all = 200 * MIB },
}
local tier_of = { shop = "gold" } -- by the agent's name; "free" for all others

local function apply(conn)
  local agent = conn.agent
  if not agent or not conn.alive then
    return -- it has left already
  end
  local name = tier_of[agent.name] or "free"
  local tier = tiers[name]
  conn:tag("tier", name)
  conn:limit { rate_in = tier.each, rate_out = tier.each }
  -- Once for an agent: each time would grant a burst.
  if agent.data ~= name then
    agent:limit { rate_in = tier.all, rate_out = tier.all }
    agent.data = name
  end
end

return {
  start = function(prev)
    for _, conn in ipairs(prev and relay.conns() or {}) do
      apply(conn)
    end
  end,

  save = function()
    return {}
  end,

  -- Only now it is known which agent it is; no byte has moved yet.
  open = apply,
}
