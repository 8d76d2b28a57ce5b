-- SPDX-License-Identifier: MIT
--
-- Waits where C functions stand in between, also in coroutines of its own.
-- end: served

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local function denied(f, ...)
      local ok, why = pcall(f, ...)
      assert(not ok and why:find("cannot wait here"), why)
    end
    local function wait() relay.sleep(0.05) end
    local function wrapped() coroutine.wrap(wait)() end
    for _, f in ipairs { wait, wrapped } do
      denied(string.gsub, "x", "x", f)
      denied(table.sort, { 3, 2, 1 }, f)
      local _, why = load(f)
      assert(why:find("cannot wait here"), why)
      denied(tostring, setmetatable({}, { __tostring = f }))
    end
    local began = relay.now()
    relay.resolve("localhost")
    relay.sleep(0.1)
    assert(relay.now() - began >= 0.09)
    return agents[1]
  end,
}
