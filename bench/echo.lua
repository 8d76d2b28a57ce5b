-- SPDX-License-Identifier: MIT
--
-- The bench's own service and its visitors: the program `load`, driven.

local h = require("harness")

local echo = { program = h.build .. "/tests/load" }

-- The service, with its `port`.
function echo.start()
  local service = h.start({ echo.program, "echo" })
  service.port = math.tointeger(service:wait_line("^(%d+)$"))
  return service
end

local Visitors = {}
Visitors.__index = Visitors

-- Visitors of a port, who do as they are told.
function echo.visitors(port)
  return setmetatable({ process = h.start({ echo.program, "pairs",
    tostring(port), stdin = "pipe" }) }, Visitors)
end

-- Has them do something; the numbers that they answer.
function Visitors:say(form, ...)
  self.process:write(form:format(...) .. "\n")
  local line = self.process:wait_line("^[%d. ]+$", 60)
  local numbers = {}
  for word in line:gmatch("%S+") do
    table.insert(numbers, tonumber(word))
  end
  return table.unpack(numbers)
end

-- Opens connections until there are so many.
function Visitors:open(count)
  local open = self:say("open %d", count)
  if open < count then
    error(("only %d pairs in 20 s"):format(open), 0)
  end
end

function Visitors:close()
  self.process:close_stdin()
  self.process:wait(10)
end

return echo
