-- SPDX-License-Identifier: MIT
--
-- A door that opens to those who know how to knock: an address that touches
-- the ports of the knock in their order may use the door for a while, and
-- nobody else. A wrong port starts it over, so a scan of all ports in a row
-- does not open it.
--
--   relay 8080 --script scripts/knock.lua
--   expose relay.example 8080 22
--   nc -z relay.example 7003; nc -z relay.example 7001; …; ssh -p 7000 …
--
-- To change: the ports, and do not let the knock be in rising order.

local relay = require "relay"

local DOOR = 7000
local KNOCK = { 7003, 7001, 7002 }
local HURRY = 10 -- seconds for the whole knock
local OPEN = 30 -- seconds; who is in by then stays in

local function hear(addr, port)
  local key = "knock:" .. addr
  local step = relay.kv.get(key) or 0
  if port ~= KNOCK[step + 1] then
    relay.kv.delete(key)
    step = 0
  end
  if port == KNOCK[step + 1] and relay.kv.incr(key, 1, HURRY) == #KNOCK then
    relay.kv.set("open:" .. addr, 1, OPEN)
    relay.log("info", "the door is open for %s", addr)
  end
end

return {
  start = function()
    relay.listen { port = DOOR }
    for _, port in ipairs(KNOCK) do
      relay.listen { port = port }
    end
  end,

  allocate = function()
    return DOOR
  end,

  visitor = function(conn)
    if conn.listen_port ~= DOOR then
      hear(conn.addr, conn.listen_port)
      return false, "a knock"
    elseif not relay.kv.get("open:" .. conn.addr) then
      relay.kv.delete("knock:" .. conn.addr)
      return false, "the door is closed"
    end
  end,
}
