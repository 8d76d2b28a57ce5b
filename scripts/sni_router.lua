-- SPDX-License-Identifier: MIT
--
-- Many agents behind one port: each serves the TLS server name that it is
-- named after. The bytes looked at stay where they are; TLS goes from end to
-- end, the relay has no key.
--
--   relay 8080 --script scripts/sni_router.lua
--   expose relay.example 8080 127.0.0.1:8443 --name www.example.com
--
-- To change: the port, and how long a visitor may take to say hello.

local relay = require "relay"

local PORT = 443
local PATIENCE = 5 -- seconds

-- The least busy of the agents with that name that have an address.
local function find_agent(name)
  local best
  for _, agent in ipairs(relay.agents()) do
    if agent.name == name and agent.ports[1] == PORT and
      (not best or agent.conns < best.conns) then
      best = agent
    end
  end
  return best
end

return {
  start = function()
    relay.listen { port = PORT }
  end,

  -- Every agent gets the shared port.
  allocate = function()
    return PORT
  end,

  visitor = function(conn)
    conn:peek(PATIENCE)
  end,

  peek = function(conn, bytes)
    local name, need = relay.sni(bytes)
    if name == false then
      return need -- that many bytes are needed to tell
    elseif not name then
      return false, "no server name"
    end
    conn:tag("sni", name)
    conn.data = name
    local agent = find_agent(name)
    if not agent then
      return false, "nobody serves " .. name
    end
    return agent
  end,

  -- If that agent left at the last moment, the relay has taken another one.
  open = function(conn)
    local agent = conn.agent
    if conn.data and agent and agent.name ~= conn.data and conn.alive then
      conn:close("nobody serves " .. conn.data .. " any more")
    end
  end,
}
