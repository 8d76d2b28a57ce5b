-- SPDX-License-Identifier: MIT
--
-- While a certain file is there, newcomers wait for its end, and after a while
-- are turned away with its first line as the reason. Who is connected goes on
-- undisturbed.
--
--   relay 8080 --script scripts/maintenance.lua
--   echo 'new disks' >/run/relay.maintenance
--   rm /run/relay.maintenance
--
-- To change: the file and the patience; 0 turns away at once. `hook_visitor` is
-- how long the relay lets a script think about a visitor.

local relay = require "relay"

local FILE = "/run/relay.maintenance"
local PATIENCE = 20 -- seconds
local PLACES = 100 -- who wait at a time

local waiting = 0

-- Kept in relay.kv, where a script that is loaded meanwhile finds it, and so do
-- those who wait in this one.
local function look()
  local file = io.open(FILE)
  local reason = file and (file:read("l") or "")
  if file then
    file:close()
  end
  if reason ~= relay.kv.get("maintenance") then
    relay.log("warn", "maintenance %s", reason and "begins" or "ends")
    relay.kv.set("maintenance", reason)
  end
end

return {
  options = { hook_visitor = "30s" },

  start = look,
  tick = look, -- every second

  visitor = function()
    local deadline = relay.now() + PATIENCE
    if relay.kv.get("maintenance") and waiting < PLACES then
      waiting = waiting + 1
      -- Also if the visitor gives up.
      local _ <close> = setmetatable({}, {
        __close = function() waiting = waiting - 1 end,
      })
      while relay.kv.get("maintenance") and relay.now() < deadline do
        relay.sleep(0.1)
      end
    end
    local reason = relay.kv.get("maintenance")
    if reason then
      return false, "maintenance: " .. reason
    end
  end,
}
