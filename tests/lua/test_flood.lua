-- SPDX-License-Identifier: MIT
--
-- A flood of connections, to a public port and to the agents' port at once:
-- whoever was there has every byte, and whoever comes is served.
--
-- With RELAY_TEST_FULL=1 there are 100 000 of them, else 4000:
--   RELAY_TEST_FULL=1 ./dev test flood

local lu = require("luaunit")
local h = require("harness")
local scene = require("scene")
local sys = h.sys

local T = { limit = 60 }

local full = os.getenv("RELAY_TEST_FULL") == "1"
if full then
  T.limit = 600
end

local COUNT <const> = full and 100000 or 4000
local OPEN_MAX <const> = 400 -- of the flood, at a time
local LIVE <const> = 8
local POOL <const> = 4
-- Both listeners, the control connection, and those ahead of need.
local RESTING <const> = 3 + POOL

-- Live pairs that compare all they have, in a process of their own.
local function start_mover(port)
  local switch = h.tmpdir() .. "/enough"
  local mover = h.start({ "lua5.4", h.source .. "tests/lua/mover.lua", port,
    LIVE, switch, name = "mover" })
  mover:wait_line("^moving$", 20)
  return mover, switch
end

local function end_mover(mover, switch)
  h.write_file(switch, "")
  local bytes = math.tointeger(mover:wait_line("^moved (%d+) bytes$", 20))
  lu.assertEquals({ mover:wait() }, { "exit", 0 })
  lu.assertTrue(bytes > 2 * LIVE * 8192, bytes .. " bytes moved")
end

-- One of the flood: says nothing, or what makes no sense, to either port.
local function start_one(i, relay, agent)
  local port = i % 2 == 0 and agent.port or relay.port
  local from = ("127.1.%d.%d"):format(i // 200 % 250, i % 200 + 1)
  local socket = sys.connect("127.0.0.1", port, { from = from })
  if socket and i % 4 < 2 then
    socket:send("GET / HTTP/1.1\r\n\r\n")
  end
  return socket
end

-- One that was there for a while goes, in order or not.
local function end_one(i, socket)
  if socket and i % 3 == 0 then
    socket:reset()
  elseif socket then
    socket:close()
  end
end

h.each_mode(T, "test_a_flood_of_connections", function()
  local relay = h.start_relay({ "--log-level", "error" })
  local agent = h.start_echoserver(relay, { "--log-level", "error",
    "--pool", POOL })
  scene.wait_sockets(relay, RESTING)
  local mover, switch = start_mover(agent.port)
  local flood = {}
  for i = 1, COUNT do
    local slot = i % OPEN_MAX
    end_one(i, flood[slot])
    flood[slot] = start_one(i, relay, agent)
    if i % 500 == 0 then
      h.echo(agent, 10000)
    end
  end
  end_mover(mover, switch)
  for i, socket in pairs(flood) do
    end_one(i, socket)
  end
  scene.wait_sockets(relay, RESTING)
  h.echo(agent, 100000)
end)

return T
