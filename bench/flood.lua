-- SPDX-License-Identifier: MIT
--
-- Connects to ports in turn, so many times a second, and closes by a reset, for
-- ever; from many addresses. Says after each second's worth how many it was.
--
--   lua5.4 bench/flood.lua RATE PORT ...

local build = os.getenv("RELAY_TEST_BUILD") or "build"
package.cpath = build .. "/tests/?.so;" .. package.cpath
local sys = require("sys")

local RATE <const> = tonumber(arg[1])
local BURST <const> = 10

io.stdout:setvbuf("line")
print("flooding")
local began = sys.now()
for i = 0, math.maxinteger do
  local socket = sys.connect("127.0.0.1",
    math.tointeger(arg[2 + i % (#arg - 1)]),
    { from = ("127.1.%d.%d"):format(i // 200 % 250, i % 200 + 1) })
  if socket then
    socket:reset()
  end
  if (i + 1) % RATE == 0 then
    print(i + 1)
  end
  if i % BURST == 0 then
    sys.sleep(math.max(0, began + i / RATE - sys.now()))
  end
end
