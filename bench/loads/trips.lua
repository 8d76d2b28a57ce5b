-- SPDX-License-Identifier: MIT
--
-- Round trips of 64 bytes over one connection, one after the other.

local echo = require("echo")
local field = require("field")

local trips = { name = "trips" }

function trips.run(run)
  local backend = echo.start()
  local systems = field.open(run, trips.name, { backend = backend.port })
  local function measure(place, record)
    local visitors = echo.visitors(place.port)
    visitors:open(1)
    local _, _, p50, p99 = visitors:say("alone %g", run.moment)
    record("p50", p50)
    record("p99", p99)
    visitors:close()
  end
  systems:rounds(1, "warm", measure)
  systems:rounds(run.rounds.trips, "64 bytes", measure)
  systems:close()
  backend:kill("KILL")
end

return trips
