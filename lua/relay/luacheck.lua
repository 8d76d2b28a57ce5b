-- SPDX-License-Identifier: MIT
--
-- A std for luacheck: the globals that a policy finds, none of which it may
-- set. Missing are those that the relay leaves out, os.exit and the like. In a
-- .luacheckrc:
--
--   stds.policy = dofile("/usr/share/lua/5.4/relay/luacheck.lua")
--   files["policies/"] = { std = "policy" }

local LIBRARIES = {
  coroutine = "close create isyieldable resume running status wrap yield",
  debug = "traceback",
  io = "close flush input lines open output read stderr stdin stdout " ..
    "tmpfile type write",
  math = "abs acos asin atan ceil cos deg exp floor fmod huge log max " ..
    "maxinteger min mininteger modf pi rad random randomseed sin sqrt tan " ..
    "tointeger type ult",
  os = "clock date difftime getenv remove rename time tmpname",
  package = "config cpath loaded path preload searchers searchpath",
  string = "byte char dump find format gmatch gsub len lower match pack " ..
    "packsize rep reverse sub unpack upper",
  table = "concat insert move pack remove sort unpack",
  utf8 = "char charpattern codepoint codes len offset",
}

local FUNCTIONS = "assert collectgarbage dofile error getmetatable ipairs " ..
  "load loadfile next pairs pcall print rawequal rawget rawlen rawset " ..
  "require select setmetatable tonumber tostring type warn xpcall"

local function set_of(words)
  local set = {}
  for word in words:gmatch("%S+") do
    set[word] = {}
  end
  return set
end

local globals = set_of(FUNCTIONS)
globals._VERSION = {}
globals._G = { other_fields = true }
for name, words in pairs(LIBRARIES) do
  globals[name] = { fields = set_of(words) }
end
-- What a policy, or a test of one, may change.
globals.package.fields.path.read_only = false
globals.package.fields.loaded.other_fields = true
globals.package.fields.preload.other_fields = true

return { read_globals = globals }
