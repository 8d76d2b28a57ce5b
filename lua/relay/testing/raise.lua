-- SPDX-License-Identifier: MIT
--
-- Errors as the C side words them: "FILE:LINE: bad argument #1 to 'sleep' …",
-- with the line of the policy (or the test) that called into this directory.

local raise = {}

local here = debug.getinfo(1, "S").source:match("^(.*)/[^/]*$")

function raise.is_ours(source)
  return source:sub(1, #here) == here
end

-- The last line of a policy that ran: a tail call leaves no other trace of
-- where it came from. Set by the hook of tasks.lua.
raise.last_line = ""

-- Our outermost frame, and where it was called from.
local function look()
  local level, ours = 2, nil
  local caller = debug.getinfo(level, "Slnt")
  while caller and raise.is_ours(caller.source) do
    level, ours = level + 1, caller
    caller = debug.getinfo(level, "Slnt")
  end
  if ours and ours.istailcall then
    return ours, raise.last_line
  end
  if caller and caller.currentline > 0 then
    return ours, ("%s:%d: "):format(caller.short_src, caller.currentline)
  end
  return ours, ""
end

function raise.error(text, ...)
  local _, where = look()
  error(where .. (select("#", ...) > 0 and text:format(...) or text), 0)
end

-- `name` is what it is called if the call itself does not tell.
function raise.argument(index, name, text)
  local frame, where = look()
  local called = frame and frame.name or
    (frame and frame.istailcall and name:match("[^.]*$")) or
    (name:find("^relay%.%w+$") and name) or "?"
  if frame and frame.namewhat == "method" then
    index = index - 1
    if index == 0 then
      error(("%scalling '%s' on bad self (%s)"):format(where, called, text), 0)
    end
  end
  error(("%sbad argument #%d to '%s' (%s)"):format(
    where, index, called, text), 0)
end

-- ---- types ------------------------------------------------------------------

-- Objects are tables here and userdata there.
function raise.type(value)
  local meta = debug.getmetatable(value)
  if type(value) == "table" and meta and meta.is_object then
    return "userdata"
  end
  return type(value)
end

local function type_name(arguments, index)
  if index > arguments.n then
    return "no value"
  end
  local meta = debug.getmetatable(arguments[index])
  return meta and type(meta.__name) == "string" and meta.__name
    or type(arguments[index])
end

function raise.wrong_type(arguments, index, name, wanted)
  raise.argument(index, name, ("%s expected, got %s"):format(
    wanted, type_name(arguments, index)))
end

-- These take packed arguments, for nothing at all is "no value", not nil.
function raise.check_type(arguments, index, name, wanted)
  if raise.type(arguments[index]) ~= wanted then
    raise.wrong_type(arguments, index, name, wanted)
  end
  return arguments[index]
end

function raise.check_string(arguments, index, name)
  local value = arguments[index]
  if type(value) == "number" then
    return tostring(value)
  end
  if type(value) ~= "string" then
    raise.wrong_type(arguments, index, name, "string")
  end
  return value
end

-- One that C will read as a string.
function raise.check_text(arguments, index, name)
  local text = raise.check_string(arguments, index, name)
  if text:find("\0", 1, true) then
    raise.argument(index, name, "it holds a zero byte")
  end
  return text
end

-- What a text that may hold any byte is in a log.
function raise.printable(text)
  return (text:gsub("\0", "\\0"))
end

function raise.check_number(arguments, index, name)
  local number = tonumber(arguments[index])
  if number == nil then
    raise.wrong_type(arguments, index, name, "number")
  end
  return number
end

-- Milliseconds.
function raise.check_seconds(arguments, index, name)
  local seconds = raise.check_number(arguments, index, name)
  if not (seconds >= 0 and seconds < 1e9) then
    raise.argument(index, name, "not a number of seconds")
  end
  return math.ceil(seconds * 1000)
end

-- ---- names ------------------------------------------------------------------

local WORD_MAX = 32

-- Insertions, deletions and replacements from one to the other.
local function distance(a, b)
  if #a > WORD_MAX or #b > WORD_MAX then
    return WORD_MAX
  end
  local row = {}
  for j = 0, #b do
    row[j] = j
  end
  for i = 1, #a do
    local corner = row[0]
    row[0] = i
    for j = 1, #b do
      local above = row[j]
      local other = a:byte(i) ~= b:byte(j) and 1 or 0
      row[j] = math.min(above + 1, row[j - 1] + 1, corner + other)
      corner = above
    end
  end
  return row[#b]
end

-- The name nearest to a mistyped one, or nil.
function raise.nearest(word, names)
  local best, best_distance = nil, math.min(#word // 2, 3)
  for _, name in ipairs(names) do
    local d = distance(word, name)
    if d <= best_distance and (not best or d < best_distance) then
      best, best_distance = name, d
    end
  end
  return best
end

function raise.suggest(text, word, names)
  local near = raise.nearest(word, names)
  return near and ("%s '%s' (did you mean '%s'?)"):format(text, word, near)
    or ("%s '%s'"):format(text, word)
end

function raise.unknown(text, word, names)
  raise.error("%s", raise.suggest(text, word, names))
end

return raise
