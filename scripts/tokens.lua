-- SPDX-License-Identifier: MIT
--
-- Only who has a token gets an address, and some get theirs from ports of their
-- own. What the token's own line in the file allows holds as well.
--
--   relay token new office --tokens tokens
--   relay 8080 --tokens tokens --script scripts/tokens.lua
--   RELAY_TOKEN=office.… expose relay.example 8080 3000
--
-- To change: the ports. Those whose token is not named here get any port of
-- the relay's.

local relay = require "relay"

local ports = {
  office = { 8100, 8109 },
  lab = { 8110, 8119 },
}

local owners = {} -- the id of an agent: that of its token

return {
  start = function(prev)
    owners = prev and prev.owners or {}
  end,

  save = function()
    return { owners = owners }
  end,

  auth = function(agent, cred)
    if not cred:known() then
      return false, "no good token" -- for the log: the agent is not told
    end
    owners[agent.id] = cred.id
    return true, cred.id -- and now it has to prove the key
  end,

  allocate = function(agent, want)
    local owner = owners[agent.id]
    local range = ports[owner]
    if not range then
      return nil
    end
    local port = want.port or range[1] + want.attempt - 1
    if port < range[1] or port > range[2] then
      return false, ("'%s' has the ports %d to %d"):format(owner, range[1],
        range[2])
    end
    return port
  end,

  agent_gone = function(agent, reason)
    relay.log("info", "%s is gone: %s", owners[agent.id] or "somebody", reason)
    owners[agent.id] = nil
  end,
}
