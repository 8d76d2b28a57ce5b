-- SPDX-License-Identifier: MIT
--
-- relay.sni, relay.http_host, relay.ssh: each reads the first bytes of a
-- visitor. A name; or nil: there is none; or false and how many bytes are
-- needed to tell.

local raise = require("relay.testing.raise")

local peekers = {}

local PEEK_MAX = 4096

local function need(count)
  if count > PEEK_MAX then
    return nil
  end
  return false, count
end

-- ---- TLS --------------------------------------------------------------------

-- A reader over a part of a message that is wholly there.
local function number(reader, size)
  if #reader.left < size then
    reader.left = ""
    return 0
  end
  local value = size == 0 and 0 or (">I" .. size):unpack(reader.left)
  reader.left = reader.left:sub(size + 1)
  return value
end

-- What follows a length of `size` bytes; empty if it is not all there.
local function part(reader, size)
  local length = number(reader, size)
  if length > #reader.left then
    reader.left = ""
    return { left = "" }
  end
  local inner = { left = reader.left:sub(1, length) }
  reader.left = reader.left:sub(length + 1)
  return inner
end

local function read_names(extension)
  local names = part(extension, 2)
  while names.left ~= "" do
    local kind = number(names, 1)
    local entry = part(names, 2)
    if kind == 0 and entry.left ~= "" then
      return not entry.left:find("\0", 1, true) and entry.left or nil
    end
  end
end

local function read_hello(hello)
  number(hello, 2) -- version
  if #hello.left < 32 then
    return nil
  end
  hello.left = hello.left:sub(33) -- random
  part(hello, 1) -- session
  part(hello, 2) -- ciphers
  part(hello, 1) -- compression
  local extensions = part(hello, 2)
  while extensions.left ~= "" do
    local kind = number(extensions, 2)
    local extension = part(extensions, 2)
    if kind == 0 then
      return read_names(extension)
    end
  end
end

local function sni(bytes)
  if not ("\x16"):find(bytes:sub(1, 1), 1, true) or
    not ("\3"):find(bytes:sub(2, 2), 1, true) or
    not ("\1"):find(bytes:sub(6, 6), 1, true) then
    return nil -- no handshake record, or no client hello
  end
  if #bytes < 9 then
    return need(9)
  end
  local record, length = (">I2"):unpack(bytes, 4), (">I3"):unpack(bytes, 7)
  if length + 4 > record then
    return nil -- spread over records
  end
  if #bytes < length + 9 then
    return need(length + 9)
  end
  return read_hello({ left = bytes:sub(10, length + 9) })
end

-- ---- HTTP and SSH -----------------------------------------------------------

-- Upper-case letters and a space, as far as it is there.
local function is_request(bytes)
  local word = bytes:sub(1, 16):match("^[A-Z]*")
  if #word == math.min(#bytes, 16) then
    return #bytes < 16
  end
  return word ~= "" and bytes:sub(#word + 1, #word + 1) == " "
end

local function host_of(value)
  value = value:gsub("^[ \t]+", ""):gsub("[\r ]+$", "")
  if value:sub(1, 1) == "[" then
    local literal = value:match("^%[[^%]]*%]")
    return literal
  end
  local host = value:match("^[^:]*")
  return host ~= "" and host or nil
end

local function http_host(bytes)
  if not is_request(bytes) then
    return nil
  end
  local at = bytes:find("\n", 1, true)
  while at do
    local line, next_at = bytes:match("^([^\n]*)()\n", at + 1)
    if not line then
      break
    end
    if line == "" or line == "\r" then
      return nil -- the headers are over
    end
    if line:sub(1, 5):lower() == "host:" then
      return host_of(line:sub(6))
    end
    at = next_at
  end
  return need(#bytes + 1)
end

local function ssh(bytes)
  local prefix = "SSH-2.0-"
  if bytes:sub(1, #prefix) ~= prefix:sub(1, #bytes) then
    return nil
  end
  local line = bytes:match("^([^\n]*)\n")
  if not line then
    if #bytes < 255 then
      return need(#bytes + 1)
    end
    return nil
  end
  local banner = line:sub(#prefix + 1):gsub("\r$", "")
  return banner ~= "" and banner or nil
end

-- ---- what a script calls ----------------------------------------------------

local function define(name, read, lower)
  peekers[name] = function(...)
    local found, count = read(
      raise.check_string(table.pack(...), 1, "relay." .. name))
    if type(found) == "string" and lower then
      found = found:lower()
    end
    if found == false then
      return false, count
    end
    return found
  end
end

define("sni", sni, true)
define("http_host", http_host, true)
define("ssh", ssh, false)

return peekers
