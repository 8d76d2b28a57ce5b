-- SPDX-License-Identifier: MIT
--
-- Moves bytes over many connections to an echo, for a test that has something
-- else to do meanwhile:
--
--   lua5.4 tests/lua/mover.lua PORT CONNECTIONS FILE
--
-- Says "moving" once each connection has had its first bytes back, and goes on
-- until FILE exists. Then it ends each with a FIN, and says how many bytes that
-- were. Any byte that is not what was sent, and any other end, is an error.

local build = os.getenv("RELAY_TEST_BUILD") or "build"
package.cpath = build .. "/tests/?.so;" .. package.cpath
local sys = require("sys")

local PORT <const> = math.tointeger(arg[1])
local CONNECTIONS <const> = math.tointeger(arg[2])
local FILE <const> = arg[3]
local BLOCK <const> = 8192

io.stdout:setvbuf("line")
sys.timeout(60)

local function is_wanted()
  local file = io.open(FILE)
  if file then
    file:close()
  end
  return not file
end

local sockets, moved = {}, 0
for i = 1, CONNECTIONS do
  sockets[i] = assert(sys.connect("127.0.0.1", PORT))
end

local function move()
  for i, socket in ipairs(sockets) do
    assert(socket:send(sys.pattern(i, moved, BLOCK)))
  end
  for i, socket in ipairs(sockets) do
    assert(assert(socket:recv_exact(BLOCK)) == sys.pattern(i, moved, BLOCK),
      "not what was sent")
  end
  moved = moved + BLOCK
end

move()
print("moving")
while is_wanted() do
  move()
end
for _, socket in ipairs(sockets) do
  socket:shutdown()
  local rest, how = socket:recv_all()
  assert(rest == "" and how == "eof", how)
end
print(("moved %d bytes"):format(moved * CONNECTIONS))
