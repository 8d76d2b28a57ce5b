-- SPDX-License-Identifier: MIT
--
-- relay.cidr{…}: a set of addresses and networks. An address is 16 bytes; an
-- IPv4 address is its mapped IPv6 one.

local raise = require("relay.testing.raise")

local cidr = {}

local MAPPED = ("\0"):rep(10) .. "\xff\xff"

-- ---- addresses --------------------------------------------------------------

local function read_ipv4(text)
  local bytes = {}
  for part in (text .. "."):gmatch("([^.]*)%.") do
    local number = part:find("^%d%d?%d?$") and tonumber(part)
    if not number or number > 255 or (#part > 1 and part:find("^0")) then
      return nil
    end
    table.insert(bytes, string.char(number))
  end
  return #bytes == 4 and table.concat(bytes) or nil
end

-- A part of an IPv6 address without "::". An IPv4 address may end it.
local function read_groups(text)
  local bytes = ""
  for part, at in (text == "" and "" or text .. ":"):gmatch("([^:]*):()") do
    local group
    if part:find("^%x%x?%x?%x?$") then
      group = (">I2"):pack(tonumber(part, 16))
    elseif at > #text then
      group = read_ipv4(part)
    end
    if not group then
      return nil
    end
    bytes = bytes .. group
  end
  return bytes
end

local function read_ipv6(text)
  local head, tail = text:match("^(.-)::(.*)$")
  if not head then
    local all = read_groups(text)
    return all and #all == 16 and all or nil
  end
  if tail:find("::", 1, true) or tail:find("^:") or head:find(".", 1, true) then
    return nil
  end
  head, tail = read_groups(head), read_groups(tail)
  if not head or not tail or #head + #tail > 14 then
    return nil
  end
  return head .. ("\0"):rep(16 - #head - #tail) .. tail
end

-- The bytes, and how many bits of them stand in front of what was written.
local function read_address(text)
  if text:find(":", 1, true) then
    return read_ipv6(text), 0
  end
  local bytes = read_ipv4(text)
  return bytes and MAPPED .. bytes, 96
end

local function mask(bytes, length)
  local whole, rest = length // 8, length % 8
  local masked = bytes:sub(1, whole)
  if rest > 0 then
    masked = masked .. string.char(
      bytes:byte(whole + 1) & (0xff << (8 - rest)) & 0xff)
  end
  return masked .. ("\0"):rep(16 - #masked)
end

local function read_network(text)
  local written, slash, bits = text:match("^([^/]*)(/?)(.*)$")
  local bytes, offset = read_address(written)
  if not bytes then
    return nil
  end
  if slash == "" then
    return bytes, 128
  end
  local number = bits:find("^%-?%d+$") and tonumber(bits)
  if not number or number < 0 or number > 128 - offset then
    return nil
  end
  return mask(bytes, offset + number), offset + number
end

-- Of this machine: it may name an interface.
function cidr.is_address(text)
  return type(text) == "string" and read_address((text:gsub("%%.*", ""))) ~= nil
end

-- ---- what a script calls ----------------------------------------------------

-- Kept apart: what a policy holds has nothing but `has`.
local lengths_of = setmetatable({}, { __mode = "k" })

local function has(...)
  local arguments = table.pack(...)
  local lengths = lengths_of[arguments[1]]
  if not lengths then
    raise.wrong_type(arguments, 1, "has", "relay.cidr")
  end
  local text = raise.check_text(arguments, 2, "has")
  local address = read_address(text)
  if not address then
    raise.error("'%s' is not an address", text)
  end
  for length, networks in pairs(lengths) do
    if networks[mask(address, length)] then
      return true
    end
  end
  return false
end

local meta = { __index = { has = has }, __name = "relay.cidr",
               __metatable = "relay.cidr", is_object = true }

function cidr.make(...)
  local list = raise.check_type(table.pack(...), 1, "relay.cidr", "table")
  local keys = 0
  for _ in next, list do
    keys = keys + 1
  end
  if keys ~= rawlen(list) then
    raise.argument(1, "relay.cidr", "its table must be a list")
  end
  local lengths, set = {}, setmetatable({}, meta)
  for i = 1, rawlen(list) do
    local text = rawget(list, i)
    local network, length
    if type(text) == "string" then
      network, length = read_network(text)
    end
    if not network then
      raise.error("relay.cidr: '%s' is not an address or network",
        tostring(text))
    end
    lengths[length] = lengths[length] or {}
    lengths[length][network] = true
  end
  lengths_of[set] = lengths
  return set
end

return cidr
