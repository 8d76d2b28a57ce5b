-- SPDX-License-Identifier: MIT
--
-- Short connections, some at a time: each says a byte, has it back, and leaves
-- with a FIN.

local echo = require("echo")
local field = require("field")
local h = require("harness")

local connections = { name = "connections" }

local AT_A_TIME <const> = 16

function connections.run(run)
  local backend = echo.start()
  local systems = field.open(run, connections.name, { backend = backend.port })
  local function measure(place, record)
    local before = place.scaffold:cpu()
    local served, seconds, failed = h.output_of({ echo.program, "connects",
      tostring(place.port), tostring(run.moment), tostring(AT_A_TIME) })
      :match("^(%d+) (%S+) (%d+)")
    served, seconds, failed = served + 0, seconds + 0, failed + 0
    record("speed", served / seconds)
    record("cpu", (place.scaffold:cpu() - before) / math.max(1, served))
    record("lost", failed / math.max(1, failed + served))
  end
  systems:rounds(1, "warm", measure)
  systems:rounds(run.rounds.connections, AT_A_TIME .. " at a time", measure)
  systems:close()
  backend:kill("KILL")
end

return connections
