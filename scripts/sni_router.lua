-- SPDX-License-Identifier: MIT
--
-- Many agents behind one port: each serves the TLS server name that it is
-- named after. The bytes looked at stay where they are; TLS goes from end to
-- end, the relay has no key.
--
--   relay 8080 --script scripts/sni_router.lua
--   expose --name www.example.com relay.example 8080 127.0.0.1:8443

local relay = require "relay"

local PORT = 8443
local PATIENCE = 5 -- seconds that a visitor may take to say hello

return {
  start = function()
    relay.listen { port = PORT }
  end,

  -- Every agent gets the shared port.
  allocate = function()
    return { port = PORT, share = true }
  end,

  visitor = function(conn)
    conn:peek(PATIENCE)
  end,

  peek = function(conn, bytes)
    local name, need = relay.sni(bytes)
    if name == false and not conn.eof and #bytes > 0 then
      return need
    end
    if not name then
      return false, "no server name"
    end
    conn:tag("sni", name)
    for _, agent in ipairs(relay.agents()) do
      if agent.name == name then
        return agent
      end
    end
    return false, "nobody serves " .. name
  end,
}
