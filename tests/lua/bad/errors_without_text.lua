-- SPDX-License-Identifier: MIT
--
-- Errors that are no strings.
-- end: denied
-- says: hook=visitor error=nil
-- says: error=true
-- says: error="mine: 0x
-- says: lua:15: long long 
-- tries: 11

local errors = {
  function() error() end,
  function() error(nil) end,
  function() error(setmetatable({}, { __name = "mine" })) end,
  function() error(("long "):rep(1e5)) end,
  function() error(true) end,
  function() error(print) end,
  function() error(coroutine.create(print)) end,
  function()
    error(setmetatable({}, { __tostring = function() return 5 end }))
  end,
  function() error(setmetatable({}, { __tostring = error })) end,
  function() error("\0\xff\n\27[31m") end,
}
local n = 0

return {
  visitor = function(conn)
    if conn.addr ~= "127.0.0.66" then return end
    n = n % #errors + 1
    errors[n]()
  end,
}
