-- SPDX-License-Identifier: MIT
--
-- The log in a shape of your own: here JSON, one record a line, for a collector
-- that wants its own names. Any byte may come from a peer; every line is one
-- line of valid JSON all the same.
--
--   relay 8080 --script scripts/json_log.lua 2>>/var/log/relay.json
--
-- To change: the names and what is left out. For just JSON there is --log json.

local SERVICE = "relay"
local LEFT_OUT = { ["address released"] = true } -- records nobody wants

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n" }

local function escape(byte)
  return escapes[byte] or ("\\u%04x"):format(byte:byte())
end

-- What is no UTF-8 is taken as Latin-1, byte by byte.
local function encode(value)
  if math.type(value) == "integer" then
    return ("%d"):format(value)
  end
  local text = tostring(value)
  local strange = utf8.len(text) and '[%c"\\]' or '[%c"\\\x80-\xff]'
  return '"' .. text:gsub(strange, escape) .. '"'
end

local function encode_all(fields)
  local parts = {}
  for key, value in pairs(fields) do
    table.insert(parts, encode(key) .. ":" .. encode(value))
  end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

return {
  log = function(event)
    if LEFT_OUT[event.msg] then
      return false
    end
    return ('{"time":%s,"service":%s,"severity":%s,"message":%s,"data":%s}')
      :format(encode(os.date("!%Y-%m-%dT%H:%M:%SZ")), encode(SERVICE),
        encode(event.level), encode(event.msg), encode_all(event.fields))
  end,
}
