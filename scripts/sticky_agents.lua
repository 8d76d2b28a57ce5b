-- SPDX-License-Identifier: MIT
--
-- Many agents behind one port, and each visitor address always at the same one,
-- by rendezvous hashing: of all agents it is the one whose name gives, together
-- with the address, the highest hash. So no table is kept, relays agree without
-- speaking, and when an agent goes only its own visitors move.
--
--   relay 8080 --script scripts/sticky_agents.lua
--   expose relay.example 8080 3000 --name one
--   expose relay.example 8080 3000 --name two
--
-- To change: the port. Agents need names, each its own.

local relay = require "relay"

local PORT = 8443

-- 64 bits: multiplying carries each byte up, shifting brings it down again.
local function hash(text)
  local sum = 0
  for i = 1, #text do
    sum = (sum ~ text:byte(i)) * 0x9e3779b97f4a7c15
    sum = sum ~ sum >> 32
  end
  return sum * 0x9e3779b97f4a7c15
end

return {
  start = function()
    relay.listen { port = PORT }
  end,

  allocate = function()
    return PORT
  end,

  visitor = function(conn, agents)
    local best, highest
    for _, agent in ipairs(agents) do
      local height = hash(agent.name .. "\0" .. conn.addr)
      if not best or math.ult(highest, height) then
        best, highest = agent, height
      end
    end
    return best -- nil: none is there, and the visitor waits for one
  end,
}
