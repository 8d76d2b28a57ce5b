-- SPDX-License-Identifier: MIT
--
-- What the relay does without a script, said as one: every hook there is, and
-- each may be left out. It does then what it does here, at no cost.
--
--   relay 8080 --script scripts/default.lua
--
-- To change: take out what you do not need, fill in what you do.

return {
  -- The command line's options, "-" as "_". The command line wins.
  options = {},

  -- Before the relay listens; after a reload with what `save` returned.
  start = function(_prev) end,
  save = function() end,
  stop = function(_reason) end,

  -- An agent says who it is. Falling off the end would deny.
  auth = function(_agent, _cred)
    return true
  end,

  -- It wants an address. nil: the one it asked for, or the next free port.
  allocate = function(_agent, _want) end,

  -- A visitor has come. nil: let in, to the agent with the fewest visitors.
  visitor = function(_conn, _agents) end,

  -- Its first bytes, if `visitor` asked for them with conn:peek(seconds).
  peek = function(_conn, _bytes) end,

  -- A visitor was joined to its agent; and has ended, with its counts.
  open = function(_conn) end,
  close = function(_conn) end,

  -- An agent's session has ended.
  agent_gone = function(_agent, _reason) end,

  -- Every second. A number: seconds until the next.
  tick = function(_now) end,

  -- A record of the log. nil: written as it is. The only one that cannot wait.
  log = function(_event) end,
}
