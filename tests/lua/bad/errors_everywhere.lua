-- SPDX-License-Identifier: MIT
--
-- Every hook fails.
-- end: denied
-- says: in auth
-- says: in allocate
-- says: in visitor
-- says: in peek
-- says: in open
-- says: in close
-- says: in agent_gone
-- says: in tick
-- says: in log
-- says: in save
-- also: agents
-- also: peek
-- also: reload

return {
  auth = function(agent)
    if agent.name == "bad" then error("in auth") end
    return true
  end,
  allocate = function(agent)
    if agent.name == "worse" then error("in allocate") end
  end,
  visitor = function(conn)
    if conn.addr == "127.0.0.66" then error("in visitor") end
    if conn.addr == "127.0.0.67" then conn:peek(1) end
  end,
  peek = function() error("in peek") end,
  open = function() error("in open") end,
  close = function() error("in close") end,
  agent_gone = function() error("in agent_gone") end,
  tick = function() error("in tick") end,
  log = function() error("in log") end,
  save = function() error("in save") end,
  stop = function() error("in stop") end,
}
