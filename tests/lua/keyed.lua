-- SPDX-License-Identifier: MIT
--
-- An agent by hand that has a key: what docs/protocol.md says of TLS, done with
-- the openssl program and nothing of the project.

local h = require("harness")
local typed = require("typed")

local keyed = {}

-- HMAC-SHA256 of a text, key and result in hexadecimal digits.
function keyed.hmac(key, text)
  local file = h.write_file(h.tmpdir() .. "/text", text)
  return h.output_of({ "openssl", "mac", "-digest", "SHA256", "-macopt",
    "hexkey:" .. key, "-in", file, "HMAC" }):match("%x+"):lower()
end

-- A tokens file with these ids; it and their tokens, by id. What else there is
-- goes to `relay token new`.
function keyed.make_tokens(ids, ...)
  local file, tokens = h.tmpdir() .. "/tokens", {}
  for _, id in ipairs(ids) do
    tokens[id] = h.output_of({ h.program("relay"), "token", "new", id,
      "--tokens", file, ... }):match("%S+")
  end
  return file, tokens
end

-- The key of a token as a tokens file has it.
function keyed.key_of(file, id)
  return (("\n" .. h.read_file(file)):match("\n" .. id .. " key=(%x+)"))
end

local letters =
  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

-- Hexadecimal digits as base64url.
function keyed.base64url(hex)
  local bits = hex:gsub("%x", function(digit)
    local value, text = tonumber(digit, 16), ""
    for i = 3, 0, -1 do
      text = text .. (value >> i & 1)
    end
    return text
  end)
  bits = bits .. ("0"):rep(-#bits % 6)
  return (bits:gsub("......", function(six)
    local at = tonumber(six, 2) + 1
    return letters:sub(at, at)
  end))
end

local Connection = {}
Connection.__index = Connection

-- A connection that says it is `identity`, with a key in hexadecimal digits.
function keyed.connect(relay, identity, key)
  h.need("openssl")
  local process = h.start({ "openssl", "s_client", "-connect",
    "127.0.0.1:" .. relay.port, "-tls1_3", "-psk_identity", identity, "-psk",
    key, "-ign_eof", "-keymatexport", "EXPORTER-relay/1 data",
    "-keymatexportlen", "32", stdin = "pipe" })
  return setmetatable({ process = process, relay = relay }, Connection)
end

-- One to a relay that shows its certificate; with what else s_client is told.
function keyed.certified(relay, ca, ...)
  h.need("openssl")
  local process = h.start({ "openssl", "s_client", "-connect",
    "127.0.0.1:" .. relay.port, "-tls1_3", "-CAfile", ca,
    "-verify_return_error", "-ign_eof", "-keymatexport",
    "EXPORTER-relay/1 data", "-keymatexportlen", "32", stdin = "pipe", ... })
  return setmetatable({ process = process, relay = relay }, Connection)
end

-- The handshake went well: what both ends have in common now.
function Connection:prove()
  self.key = self.process:wait_line("Keying material: (%x+)"):lower()
  self.process:wait_line("^%-%-%-$")
  return self
end

-- It did not, and the alert is like all others.
function Connection:fail()
  self.process:wait()
  if not self.process:log():find("alert illegal parameter", 1, true) then
    error("refused otherwise: " .. self.process:log(), 2)
  end
end

function Connection:say(format, ...)
  self.process:write(format:format(...) .. "\n")
end

-- The next message, PING aside.
function Connection:hear()
  local message
  repeat
    message = typed.parse(self.process:wait_line("^%u.*$"))
    if message.verb == "PING" then
      self:say("PONG n=%s", message.n)
    end
  until message.verb ~= "PING"
  return message
end

-- Becomes a control connection, with its OK.
function Connection:listen(words)
  self:say("RELAY/1 LISTEN host=localhost%s", words and " " .. words or "")
  self.ok = self:hear()
  if self.ok.verb ~= "OK" then
    error("no OK: " .. (self.ok.reason or self.ok.verb), 2)
  end
  self.session = self.ok.session
  self.port = math.tointeger(self.ok.port)
  return self
end

function keyed.agent(relay, id, key, words)
  return keyed.connect(relay, "t/" .. id, key):prove():listen(words)
end

-- A data connection that says it is `identity`, with what follows from the key
-- of a control connection.
function Connection:data(identity)
  return keyed.connect(self.relay, identity, keyed.hmac(self.key, identity))
end

function Connection:accept(id)
  local data = self:data("v/" .. id):prove()
  data:say("RELAY/1 ACCEPT session=%s id=%s", self.session, id)
  return data
end

return keyed
