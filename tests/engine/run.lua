-- SPDX-License-Identifier: MIT
--
-- Plays one case of tests/lua/policy_cases.lua with the real engine:
--
--   engine tests/engine/run.lua SOURCE FOLDER CASE

local source, directory, name = arg[1], arg[2], arg[3]
package.path = source .. "tests/lua/?.lua;" .. source .. "lua/?.lua;" ..
  package.path

local T = dofile(source .. "tests/engine/engine.lua")
local case = require("policy_cases").play(T, directory)[name]
local ok, why = xpcall(case, function(object)
  return type(object) == "table" and object.msg
    or debug.traceback(tostring(object))
end)
T.close()
if not ok then
  io.stderr:write(why, "\n")
end
os.exit(ok and 0 or 1, true)
