-- SPDX-License-Identifier: MIT
--
-- Every hook returns what it may not.
-- end: denied
-- says: auth returned a string
-- says: allocate returned a table whose port is wrong
-- says: visitor returned a table
-- says: peek needs 0.5 bytes
-- says: log returned a number
-- says: save returned a function
-- also: agents
-- also: peek
-- also: reload

return {
  auth = function(agent)
    if agent.name == "bad" then return "yes" end
    return true
  end,
  allocate = function(agent)
    if agent.name == "worse" then return { port = "8080" } end
  end,
  visitor = function(conn)
    if conn.addr == "127.0.0.66" then return {} end
    if conn.addr == "127.0.0.67" then conn:peek(1) end
  end,
  peek = function() return 0.5 end,
  log = function() return 5 end,
  save = function() return print end,
}
