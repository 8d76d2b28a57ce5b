-- SPDX-License-Identifier: MIT
--
-- Agents by hand whose TLS is in the test itself: quick to make, and every byte
-- that goes over the wire is at hand. (keyed.lua is the same with the openssl
-- program, which shows that no code of ours is needed for it.)

local h = require("harness")
local typed = require("typed")
local sys = h.sys

local secured = {}

local Connection = {}
Connection.__index = Connection

-- What is known of tokens: a file with these, each { key =, token = } by id.
function secured.tokens(ids, ...)
  local file, tokens = h.tmpdir() .. "/tokens", {}
  for _, id in ipairs(ids) do
    local token = h.output_of({ h.program("relay"), "token", "new", id,
      "--tokens", file, ... }):match("%S+")
    tokens[id] = { token = token }
  end
  for id, key in h.read_file(file):gmatch("([^\n ]+) key=(%x+)") do
    tokens[id].key = key:gsub("%x%x", function(hex)
      return string.char(tonumber(hex, 16))
    end)
  end
  return file, tokens
end

function secured.hex(bytes)
  return (bytes:gsub(".", function(byte)
    return ("%02x"):format(byte:byte())
  end))
end

local LETTERS <const> =
  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

function secured.base64url(bytes)
  local text, bits, count = {}, 0, 0
  for i = 1, #bytes do
    bits, count = bits << 8 | bytes:byte(i), count + 8
    while count >= 6 do
      count = count - 6
      local at = 1 + (bits >> count & 63)
      text[#text + 1] = LETTERS:sub(at, at)
    end
  end
  if count > 0 then
    local at = 1 + (bits << 6 - count & 63)
    text[#text + 1] = LETTERS:sub(at, at)
  end
  return table.concat(text)
end

-- A first flight that says it is `identity`; the key may be a wrong one.
function secured.hello(identity, key, options)
  local how = { identity = identity, key = key }
  for name, value in pairs(options or {}) do
    how[name] = value
  end
  return (sys.tls(how):shake())
end

-- ---- a connection -----------------------------------------------------------

-- Connects and says it is `identity`. `options` as h.connect takes them, and
-- `to`, a port to use instead of the relay's.
function secured.connect(relay, identity, key, options)
  options = options or {}
  return setmetatable({
    relay = relay,
    options = options,
    socket = h.connect(options.to or relay,
      { from = options.from, nodelay = true }),
    tls = sys.tls({ identity = identity, key = key }),
    sent = "",   -- all bytes that went to the relay
    answer = "", -- and that came from there
    text = "",   -- what was read, and not taken yet
    heard = "",  -- all that was read
    hello = nil, -- the first flight, once it shakes
  }, Connection)
end

function Connection:send(bytes)
  self.sent = self.sent .. bytes
  return self.socket:send(bytes)
end

function Connection:recv(seconds)
  local bytes, why = self.socket:recv(seconds)
  self.answer = self.answer .. (bytes or "")
  return bytes, why
end

-- How the handshake ends: "open", or why it does not come to be so.
function Connection:shake()
  local out, how = self.tls:shake()
  self.hello = out
  while how == "shaking" do
    self:send(out)
    local bytes, why = self:recv()
    if not bytes then
      return why
    end
    out, how = self.tls:shake(bytes)
  end
  self:send(out)
  if how == "open" then
    self.key = self.tls:export("EXPORTER-relay/1 data")
  end
  return how
end

function Connection:prove()
  local how = self:shake()
  if how ~= "open" then
    error("the key is not taken: " .. how, 2)
  end
  return self
end

function Connection:write(text)
  return self:send(self.tls:write(text))
end

function Connection:say(format, ...)
  return self:write(format:format(...) .. "\n")
end

-- Takes in what comes, for so many seconds at most; nil and why at its end.
function Connection:fill(seconds)
  local bytes, why = self:recv(seconds)
  if not bytes then
    return nil, why
  end
  local text, ended = self.tls:read(bytes)
  self.text = self.text .. (text or "")
  self.heard = self.heard .. (text or "")
  return text, ended
end

-- So many bytes of text.
function Connection:read(count)
  local deadline = sys.now() + h.seconds(10)
  while #self.text < count do
    local ok, why = self:fill(math.max(0, deadline - sys.now()))
    if not ok then
      return nil, why
    end
  end
  local text = self.text:sub(1, count)
  self.text = self.text:sub(count + 1)
  return text
end

-- The next message that is there by then, PING aside; or nil and why.
function Connection:hear(seconds)
  local deadline = sys.now() + h.seconds(seconds or 10)
  while true do
    local line, rest = self.text:match("^([^\n]*)\n(.*)$")
    if line then
      self.text = rest
      local message = typed.parse(line)
      if message.verb ~= "PING" then
        return message
      end
      self:say("PONG n=%s", message.n)
    else
      local ok, why = self:fill(math.max(0, deadline - sys.now()))
      if not ok then
        return nil, why
      end
    end
  end
end

function Connection:close()
  self.socket:close()
end

-- ---- an agent ---------------------------------------------------------------

-- A control connection with its OK. `options` as connect has them, and `words`
-- of its LISTEN.
function secured.agent(relay, id, key, options)
  local agent = secured.connect(relay, "t/" .. id, key, options):prove()
  agent:say("RELAY/1 LISTEN host=localhost %s",
    options and options.words or "name=" .. id)
  local answer, why = agent:hear()
  if not answer or answer.verb ~= "OK" then
    error("no OK: " .. (answer and answer.reason or why), 2)
  end
  agent.ok, agent.session = answer, answer.session
  agent.port = math.tointeger(answer.port)
  return agent
end

-- A data connection with the key that this identity has by this agent's.
function Connection:data(identity, options)
  return secured.connect(self.relay, identity, sys.hmac(self.key, identity),
    options or self.options)
end

function Connection:accept(id, options)
  local data = self:data("v/" .. id, options):prove()
  data:say("RELAY/1 ACCEPT session=%s id=%s", self.session, id)
  return data
end

-- The line of a plain data connection, with the mac of this agent or what is
-- given.
function Connection:accept_line(id, key, session)
  session = session or self.session
  local mac = sys.hmac(key or self.key, ("ACCEPT %s %s"):format(session, id))
  return ("RELAY/1 ACCEPT session=%s id=%s mac=%s\n"):format(session, id,
    secured.base64url(mac))
end

-- A visitor of an agent, a typed one too, and the id by which it was told.
function secured.visitor(agent)
  local visitor = h.connect(agent.port)
  local message
  repeat
    message = assert(agent:hear())
  until message.verb == "VISITOR"
  return visitor, message.id
end

return secured
