-- SPDX-License-Identifier: MIT
--
-- What a flood meets where there is no relay: a process that accepts whoever
-- comes to its ports, and echoes.
--
--   lua5.4 bench/plain.lua COUNT    says which ports it has

local build = os.getenv("RELAY_TEST_BUILD") or "build"
package.cpath = build .. "/tests/?.so;" .. package.cpath
local sys = require("sys")

local listeners, ports, open = {}, {}, {}
for i = 1, math.tointeger(arg[1]) do
  listeners[i] = assert(sys.listen())
  ports[i] = listeners[i]:port()
  open[i] = listeners[i]
end
io.stdout:setvbuf("line")
print(table.concat(ports, " "))

local function serve(socket)
  local bytes, why = socket:recv(0)
  if bytes then
    socket:send(bytes)
  elseif why ~= "timeout" then
    socket:close()
    return false
  end
  return true
end

while true do
  for _, ready in ipairs(sys.poll(open, "r", 1)) do
    for i = #open, 1, -1 do
      if open[i] == ready and i > #listeners and not serve(ready) then
        table.remove(open, i)
      elseif open[i] == ready and i <= #listeners then
        table.insert(open, ready:accept(0))
      end
    end
  end
end
