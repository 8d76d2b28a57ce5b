-- SPDX-License-Identifier: MIT
--
-- Keys of agents in a Redis that any number of relays share: who is there with
-- a key, and proves it, gets an address. While Redis is asked, the handshake
-- of this agent stands still, and nobody else's.
--
--   apt install lua-redis lua-socket
--   relay token new office --tokens tokens
--   redis-cli set relay:key:office 0f3c…     # what tokens has behind key=
--   relay 8080 --penalties on --script scripts/redis_auth.lua
--
-- To change: where Redis is, and what its keys are called. A key that is taken
-- out of Redis lets nobody in from then on; who is in stays in. An error in
-- `auth` denies, so without Redis nobody gets in.

local redis = require "redis"

local SERVER = { host = "127.0.0.1", port = 6379, timeout = 1 }
local PREFIX = "relay:key:"

local function key_of(id)
  local client = redis.connect(SERVER)
  local key = client:get(PREFIX .. id)
  client:quit()
  return key
end

return {
  auth = function(_, cred)
    local key = cred.id and key_of(cred.id)
    if not key then
      return false, "not in redis" -- for the log: the agent is not told
    end
    return cred:verify(key), cred.id
  end,
}
