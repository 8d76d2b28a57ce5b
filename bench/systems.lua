-- SPDX-License-Identifier: MIT
--
-- Everything that is measured. Each system leads from a public port over a
-- relay and an agent to the backend, and is set up as its own documents advise
-- for speed; where they say nothing, as it comes. The files in systems/ return
-- lists of
--
--   name      what it is called here and on the page
--   kind      "ours", "proxy" (the agent has to be reachable), "tunnel" (the
--             agent dials out), or "none"
--   secret    how the bytes between its hops are encrypted, "TLS" or "SSH";
--             nil: they are not
--   programs  without which it is skipped
--   flag      that makes the first of them say its version, and `says`, a
--             pattern that takes it from there, where it is not three numbers
--   start     start(scaffold): the public port
--   only      names of loads: it stands for no others
--   most      {pairs, why}: more are not tried

local h = require("harness")
local programs = require("programs")

local systems = { list = {} }

for _, file in ipairs({ "systems.ours", "systems.proxies",
                        "systems.tunnels" }) do
  for _, entry in ipairs(require(file)) do
    table.insert(systems.list, entry)
  end
end

-- What the others lose, they lose to this.
table.insert(systems.list, { name = "direct", kind = "none", programs = {},
  start = function(s)
    return s.backend
  end })

for _, entry in ipairs(systems.list) do
  systems[entry.name] = entry
end

-- What of a system's programs is missing; nil when nothing is.
function systems.lacks(entry)
  for _, name in ipairs(entry.programs) do
    if not programs.path(name) then
      return name
    end
  end
  if entry.name == "nginx" and not programs.nginx_stream() then
    return "nginx's stream module"
  end
end

function systems.version(entry)
  if entry.kind == "ours" then
    return programs.version(h.program("relay"), "--version")
  end
  if not entry.flag then
    return ""
  end
  return programs.version(programs.path(entry.programs[1]), entry.flag,
    entry.says)
end

return systems
