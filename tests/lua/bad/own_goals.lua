-- SPDX-License-Identifier: MIT
--
-- Breaks its own world: strings, the relay's functions, modules, globals.
-- end: denied
-- says: setmetatable

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    if not conn.alive then return end
    local _G = _G
    getmetatable("").__index = function() error("no strings") end
    getmetatable("").__add = function(a) return a end
    for name in pairs(relay) do relay[name] = nil end
    setmetatable(relay, nil)
    for name in pairs(package.loaded) do package.loaded[name] = nil end
    package.loaded[1] = package
    package.path, package.searchers = 5, nil
    for name in pairs(_G) do _G[name] = nil end
    setmetatable = nil
  end,
}
