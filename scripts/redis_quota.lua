-- SPDX-License-Identifier: MIT
--
-- So many visits of one address in an hour, counted in a Redis that any number
-- of relays share. Asking it holds up this visitor and nobody else.
--
--   apt install lua-redis lua-socket
--   relay 8080 --script scripts/redis_quota.lua
--
-- To change: where Redis is, and the numbers. An error in `visitor` denies, so
-- without Redis nobody comes in.

local redis = require "redis"

local SERVER = { host = "127.0.0.1", port = 6379, timeout = 1 }
local VISITS = 100
local HOUR = 3600 -- seconds
local IDLE = 16 -- connections kept for the next to ask

local idle = {}

-- Calls `ask` with a connection that nobody else uses meanwhile; one that
-- failed is not kept.
local function with_redis(ask)
  local client = table.remove(idle)
  local ok, reply = false, nil
  if client then
    ok, reply = pcall(ask, client) -- it may have been closed while it lay idle
  end
  if not ok then
    client = redis.connect(SERVER)
    reply = ask(client)
  end
  if #idle < IDLE then
    table.insert(idle, client)
  else
    client.network.socket:close()
  end
  return reply
end

return {
  visitor = function(conn)
    local key = ("visits:%s:%d"):format(conn.addr, os.time() // HOUR)
    local visits = with_redis(function(client)
      client:set(key, 0, "EX", HOUR, "NX") -- goes by itself, once it is over
      return client:incr(key)
    end)
    if visits > VISITS then
      return false, "too many visits in an hour"
    end
  end,
}
