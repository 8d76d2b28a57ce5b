-- SPDX-License-Identifier: MIT
--
-- Ways out of the process.
-- end: denied
-- says: attempt to call a nil value (field 'exit')

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    for _, name in ipairs { "exit", "execute", "setlocale" } do
      assert(os[name] == nil, name)
    end
    assert(io.popen == nil and package.loadlib == nil)
    for name in pairs(debug) do assert(name == "traceback", name) end
    assert(package.loaded.debug == debug)
    assert(not pcall(setmetatable, {}, { __gc = function() end }))
    assert(type(getmetatable(io.stdout)) == "string")
    return os.exit(3)
  end,
}
