-- SPDX-License-Identifier: MIT
--
-- Bytecode by every door.
-- end: denied
-- says: attempt to load a binary chunk (mode is 't')

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    local code = string.dump(function() end)
    local path = os.tmpname()
    local file = io.open(path, "wb")
    file:write(code)
    file:close()
    assert(not load(code))
    assert(not load(code, "x", "b"))
    assert(not load(code, "x", "bt", {}))
    assert(not load(function() local c = code code = nil return c end, "x", "b"))
    assert(not loadfile(path))
    assert(not loadfile(path, "b"))
    assert(not pcall(dofile, path))
    package.path = path
    local ok, why = pcall(require, "module")
    os.remove(path)
    assert(not ok)
    error(why)
  end,
}
