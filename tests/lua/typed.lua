-- SPDX-License-Identifier: MIT
--
-- Both halves of the protocol as a test types them: an agent that does just
-- what it is told, towards a real relay, and a relay towards a real agent. No
-- answer is given that the test does not give, but PONG, unless it is mute.

local h = require("harness")
local sys = h.sys

local typed = {}

-- Any text as a value of a word.
function typed.encode(text)
  return (text:gsub("[^%w%-._~:%[%]/]", function(byte)
    return ("%%%02x"):format(byte:byte())
  end))
end

-- "VERB key=value …" as {verb = VERB, key = VALUE, …}.
function typed.parse(line)
  local message = { verb = line:match("^RELAY/1 (%u+)") or
                           line:match("^%u+") or line }
  for key, value in line:gmatch(" ([%l%d_-]+)=([^ ]*)") do
    message[key] = value:gsub("%%(%x%x)", function(hex)
      return string.char(tonumber(hex, 16))
    end)
  end
  return message
end

-- ---- a control connection, from either side ---------------------------------

local Control = {}
Control.__index = Control

local sockets = {}

local function keep(socket)
  table.insert(sockets, socket)
  return socket
end

-- A test that leaves connections open makes programs wait for their end: this
-- is for its tearDown.
function typed.close_all()
  for _, socket in ipairs(sockets) do
    socket:close()
  end
  sockets = {}
end

function Control:say(format, ...)
  local line = format:format(...)
  local ok, why = self.socket:send(line .. "\n")
  if not ok then
    error(("cannot say '%s': %s"):format(line, why), 2)
  end
end

-- The next message, PING aside; or nil and why.
function Control:hear(seconds)
  local deadline = sys.now() + h.seconds(seconds or 30)
  while true do
    local line, why = self.socket:recv_line(math.max(0, deadline - sys.now()))
    if not line then
      return nil, why
    end
    local message = typed.parse(line)
    if message.verb ~= "PING" then
      return message
    end
    if not self.mute then
      self.socket:send(("PONG n=%s\n"):format(message.n))
    end
  end
end

-- The next message of this kind; others that come before are an error, unless
-- they are of the kind `past`.
function Control:expect(verb, past)
  while true do
    local message, why = self:hear()
    if not message then
      error(("no %s: %s"):format(verb, why), 2)
    elseif message.verb == verb then
      return message
    elseif message.verb ~= past then
      error(("%s instead of %s"):format(message.verb, verb), 2)
    end
  end
end

-- Gives the address up, in order.
function Control:bye()
  self:say("BYE")
  self.socket:recv_all()
  self.socket:close()
end

function Control:close()
  self.socket:close()
end

-- ---- a visitor that is not let in ------------------------------------------

-- Connects to a port and says something, where the answer must be a reset: it
-- may come before the connection is even known to be there.
function typed.turned_away(port, bytes)
  local visitor, why = sys.connect("127.0.0.1", port)
  if visitor then
    local answer
    visitor:send(bytes or "")
    answer, why = visitor:recv_all()
    visitor:close()
    if answer ~= "" then
      error(("a visitor of %d is answered: %s"):format(port, answer), 2)
    end
  end
  if why ~= "reset" then
    error(("a visitor of %d is not reset: %s"):format(port, why), 2)
  end
end

-- ---- an agent ---------------------------------------------------------------

-- typed.agent(RELAY, {words = "port=0 …", from =, …}): says LISTEN and reads
-- the answer, which is its `ok`; also `port`, `session` and `resume`. With
-- `refused`, the answer has to be ERR, and is its `err`; with `either`, either.
function typed.agent(relay, options)
  options = options or {}
  local agent = setmetatable({ relay = relay }, Control)
  agent.socket = keep(h.connect(relay, options))
  local words = options.words and " " .. options.words or ""
  agent:say("RELAY/1 LISTEN%s", words)
  local answer, why = agent:hear()
  local wanted = options.refused and "ERR" or "OK"
  if not answer or answer.verb ~= wanted and not options.either then
    error(("no %s: %s"):format(wanted,
      answer and answer.reason or answer and answer.verb or why), 2)
  elseif answer.verb == "ERR" then
    agent.err = answer
    return agent
  end
  agent.ok = answer
  agent.port = math.tointeger(agent.ok.port)
  agent.session, agent.resume = agent.ok.session, agent.ok.resume
  return agent
end

-- A data connection for a visitor that was announced.
function Control:accept(id, session, options)
  local socket = h.connect(self.relay, options)
  socket:send(("RELAY/1 ACCEPT session=%s id=%s\n"):format(
    session or self.session, id))
  return socket
end

-- A data connection ahead of need.
function Control:wait(n)
  local socket = h.connect(self.relay)
  socket:send(("RELAY/1 WAIT session=%s n=%d\n"):format(self.session, n))
  return socket
end

-- A visitor of it, and the VISITOR line that announces it.
function Control:visitor(options)
  local visitor = h.connect(self.port, options)
  return visitor, self:expect("VISITOR", "GONE")
end

-- A visitor and its data connection.
function Control:join()
  local visitor, message = self:visitor()
  return visitor, self:accept(message.id), message
end

-- ---- a relay ----------------------------------------------------------------

-- Waits at a listening socket for an agent's LISTEN, which is its `listen`.
function typed.meet(listener, seconds)
  local socket, why = listener:accept(seconds and h.seconds(seconds))
  if not socket then
    error("no agent comes: " .. why, 2)
  end
  local relay = setmetatable({ socket = keep(socket) }, Control)
  relay.listen = relay:expect("LISTEN")
  return relay
end

-- Answers it with an address; the agent's pool is left empty.
function Control:welcome(host, port)
  self:say("OK host=%s port=%d session=5e55 resume=71cc heartbeat=5",
    host, port)
end

return typed
