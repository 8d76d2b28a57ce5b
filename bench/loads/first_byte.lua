-- SPDX-License-Identifier: MIT
--
-- From connecting to having the first byte back, with the agent a way off.

local echo = require("echo")
local field = require("field")
local h = require("harness")

local first_byte = { name = "first byte" }

first_byte.delays = { 0, 20, 100 }

local function measure(place, record)
  local began = h.sys.now()
  local visitor = assert(h.sys.connect("127.0.0.1", place.port))
  local answer = visitor:send("x") and visitor:recv_exact(1, 3)
  local took = h.sys.now() - began
  visitor:close()
  if answer ~= "x" then
    error("no byte came back", 0)
  end
  record("ms", took * 1e3)
end

function first_byte.run(run)
  local backend = echo.start()
  for _, delay in ipairs(first_byte.delays) do
    local systems = field.open(run, first_byte.name, { backend = backend.port,
      delay = delay, only = function(entry)
        return delay == 0 or entry.kind ~= "none"
      end })
    h.sys.sleep(delay / 1e3 * 6) -- until pools are full
    systems:rounds(run.rounds.first_byte, delay, measure)
    systems:close()
  end
  backend:kill("KILL")
end

return first_byte
