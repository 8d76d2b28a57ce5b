-- SPDX-License-Identifier: MIT
--
-- One port for ssh, https and http: a visitor goes to the agent named "ssh",
-- "tls" or "http" by how it begins to speak. One that says nothing waits for
-- its server to speak first, so it goes to "ssh".
--
--   relay 8080 --script scripts/protocol_mux.lua
--   expose relay.example 8080 22 --name ssh
--   expose relay.example 8080 127.0.0.1:8443 --name tls
--   expose relay.example 8080 3000 --name http
--
-- To change: the port, the patience, what is told from what.

local relay = require "relay"

local PORT = 443
local SILENCE = 2 -- seconds, then it is taken for one that listens
local ENOUGH = 16 -- bytes that hold the first word of an http request

-- A name; nil: none of them.
local function protocol_of(bytes)
  if bytes == "" or bytes:sub(1, 4) == "SSH-" then
    return "ssh"
  elseif bytes:byte() == 22 then -- a TLS handshake
    return "tls"
  elseif bytes:find("^%u+ ") then
    return "http"
  end
end

return {
  start = function()
    relay.listen { port = PORT }
  end,

  allocate = function(agent)
    if agent.name ~= "ssh" and agent.name ~= "tls" and agent.name ~= "http" then
      return false, "an agent here is called ssh, tls or http"
    end
    return PORT
  end,

  visitor = function(conn)
    conn:peek(SILENCE)
  end,

  peek = function(conn, bytes)
    local name = protocol_of(bytes)
    if not name and #bytes < ENOUGH and bytes:find("^%u+$") then
      return #bytes + 1 -- a part of the first word: asked again with more
    elseif not name then
      return false, "an unknown protocol"
    end
    conn:tag("protocol", name)
    conn.data = name
    for _, agent in ipairs(relay.agents()) do
      if agent.name == name and agent.ports[1] == PORT then
        return agent
      end
    end
    return false, "nobody serves " .. name
  end,

  -- If that agent left at the last moment, the relay has taken another one.
  open = function(conn)
    local agent = conn.agent
    if conn.data and agent and agent.name ~= conn.data and conn.alive then
      conn:close("nobody serves " .. conn.data .. " any more")
    end
  end,
}
