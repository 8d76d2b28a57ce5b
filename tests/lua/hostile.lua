-- SPDX-License-Identifier: MIT
--
-- Those who have no business at the agent port: what each kind of them sends,
-- and why the relay turns it away. What they know and aim at is a stage's
-- (hostile_stage.lua).

local secured = require("secured")
local sys = require("sys")

local hostile = {}

local ZERO <const> = ("0"):rep(32)
local WRONG <const> = ("\1"):rep(32)

-- ---- bytes of TLS -----------------------------------------------------------

-- The handshake message in the one record that a first flight is.
local function message_of(hello)
  return hello:sub(6)
end

local function in_records(message, size)
  local records = {}
  for at = 1, #message, size do
    records[#records + 1] = "\22\3\1" .. (">s2"):pack(
      message:sub(at, at + size - 1))
  end
  return table.concat(records)
end

-- A first flight with so many bytes of padding before its other extensions.
local function padded(hello, count)
  local body = message_of(hello):sub(5)
  local at = 2 + 32 + 1
  at = at + 1 + body:byte(at)                 -- the legacy session id
  at = at + 2 + (">I2"):unpack(body, at)      -- ciphers
  at = at + 1 + body:byte(at)                 -- compressions
  local extensions = (">s2"):unpack(body, at)
  body = body:sub(1, at - 1) .. (">s2"):pack(
    (">I2s2"):pack(21, ("\0"):rep(count)) .. extensions)
  return in_records("\1" .. (">s3"):pack(body), 16384)
end

-- As one who has neither a token nor what another's session is bound to.
local function claims(identity)
  return function()
    return secured.hello(identity, WRONG)
  end
end

local function flipped(bytes, at)
  return bytes:sub(1, at - 1) .. string.char(bytes:byte(at) ~ 1) ..
    bytes:sub(at + 1)
end

local function alice_hello(stage)
  return secured.hello("t/alice", stage.tokens.alice.key)
end

-- ---- kinds ------------------------------------------------------------------

local UNLIKE <const> = "a TLS handshake that is not ours"
local UNNAMED <const> = "a TLS handshake that names no key of ours"
local LATE <const> = "its TLS handshake did not end in time"
local BROKEN <const> = "its TLS handshake broke off"

-- What the relay says to a key that it does not take, whatever the cause.
hostile.ALERT = "\21\3\3\0\2\2\47"

-- { NAME, REASON in the relay's log (a list: one of these; nil: none), what it
--   sends: a text, or function(stage, i); answer= all that may come back, a
--   pattern; fin= it ends what it sends; slow= it waits for the relay's end;
--   acts= function(stage, from) does all of it, and returns its connection;
--   free= it costs its source nothing, as somebody honest may be late so }

-- To any relay.
hostile.words = {
  { "HTTP", "an HTTP request", "GET / HTTP/1.1\r\nHost: x\r\n\r\n" },
  { "another version", "another protocol version", "RELAY/2 LISTEN\n" },
  { "an oversize line", "an oversized line", ("a"):rep(2000) },
  { "garbage", "binary data",
    function(_, i)
      return "\255" .. sys.pattern(i, 0, 700) .. "\n"
    end },
  { "a line cut short", "it ended before its first line did", "RELAY/1 LIS",
    fin = true },
  { "a slow line", "an unfinished line", "RELAY/1 LIS", slow = true },
  { "silence", "it said nothing in time", "", slow = true },
  { "a TLS alert", "a TLS alert", "\21\3\3\0\2\2\40" },
  { "a session that is none", "no such session",
    "RELAY/1 ACCEPT session=" .. ZERO .. " id=" .. ZERO .. "\n" },
  { "waiting at none", "no such session",
    "RELAY/1 WAIT session=" .. ZERO .. " n=1\n" },
}

-- To a relay with tokens.
hostile.keyed = {
  -- In plain.
  { "no token", "no token", "RELAY/1 LISTEN\n" },
  { "a stolen id in plain", "a plain data connection where TLS is due",
    function(stage)
      return ("RELAY/1 ACCEPT session=%s id=%s\n"):format(
        stage.agents.alice.session, stage.waiting.id)
    end },
  { "a stolen id without a mac", "a data connection without its mac",
    function(stage)
      return ("RELAY/1 ACCEPT session=%s id=%s\n"):format(
        stage.plain.session, stage.plain_waiting.id)
    end },
  { "a stolen id with a wrong mac", "a data connection without its mac",
    function(stage)
      return stage.plain:accept_line(stage.plain_waiting.id, WRONG)
    end },
  { "another agent's id by mac", "the id of another agent's visitor",
    function(stage)
      return stage.plain:accept_line(stage.waiting.id)
    end },
  { "a replay of a mac", "no such visitor", free = true, function(stage)
      return stage.plain_joined.sent
    end },
  { "a replay of a burned mac", "no such visitor", free = true, function(stage)
      return stage.plain_burned.sent
    end },
  -- Keys.
  { "a wrong key", "wrong key", claims("t/alice") },
  { "an unknown token", "unknown token", claims("t/nobody") },
  { "a revoked token", "token is revoked", function(stage)
      return secured.hello("t/revoked", stage.tokens.revoked.key)
    end },
  { "an expired token", "token has expired", function(stage)
      return secured.hello("t/expired", stage.tokens.expired.key)
    end },
  { "a wrong binder", "wrong key", function(stage)
      local hello = alice_hello(stage)
      return flipped(hello, #hello)
    end },
  { "a changed ClientHello", "wrong key", function(stage)
      return flipped(alice_hello(stage), 20)
    end },
  { "a hello in a thousand pieces", "wrong key", function()
      return in_records(message_of(secured.hello("t/alice", WRONG)), 1)
    end },
  { "a hello of 60 KB", "wrong key", function()
      return padded(secured.hello("t/alice", WRONG), 60000)
    end },
  { "no visitor's key", "no such visitor", claims("v/" .. ZERO) },
  { "a stolen id", "wrong key", function(stage)
      return secured.hello("v/" .. stage.waiting.id, WRONG)
    end },
  { "another agent's id", "wrong key", function(stage)
      local identity = "v/" .. stage.waiting.id
      return secured.hello(identity,
        sys.hmac(stage.agents.bob.key, identity))
    end },
  { "a stolen id of a pair", "wrong key", function(stage)
      return secured.hello("v/" .. stage.joined.id, WRONG)
    end },
  { "waiting at another's session", "wrong key", function(stage)
      local identity = ("w/%s/9"):format(stage.agents.alice.session)
      return secured.hello(identity,
        sys.hmac(stage.agents.bob.key, identity))
    end },
  { "waiting at no session", "no such session",
    claims("w/" .. ZERO .. "/1") },
  { "an id seen and burned", "no such visitor", function(stage)
      return stage.burned.sent
    end },
  -- TLS that is not ours.
  { "a name of no kind", UNNAMED, claims("x/alice") },
  { "a name that is none", UNLIKE, claims("t/" .. ("a"):rep(200)) },
  { "TLS without a key", UNLIKE, function()
      return secured.hello(nil, nil, { name = "localhost" })
    end },
  { "TLS 1.2", UNLIKE, function()
      return secured.hello(nil, nil, { version = "1.2" })
    end },
  { "another group", UNLIKE, function(stage)
      return secured.hello("t/alice", stage.tokens.alice.key,
        { group = "P-256" })
    end },
  { "a replay of a control connection", UNLIKE, function(stage)
      return stage.agents.alice.sent
    end, answer = "^\22" },
  { "a replay of a data connection", UNLIKE, function(stage)
      return stage.joined.sent
    end, answer = "^\22" },
  { "a second hello", UNLIKE, function(stage)
      return alice_hello(stage):rep(2)
    end, answer = "^\22" },
  { "a replayed hello alone", LATE, function(stage)
      return stage.agents.alice.hello
    end, answer = "^\22", slow = true },
  { "a hello cut short", BROKEN, function(stage)
      return alice_hello(stage):sub(1, 100)
    end, fin = true, answer = "" },
  { "an alert after half a hello", UNLIKE, function(stage)
      return in_records(message_of(alice_hello(stage)):sub(1, 100), 100) ..
        "\21\3\3\0\2\2\40"
    end },
  { "a slow hello", LATE, function(stage)
      return alice_hello(stage):sub(1, 100)
    end, slow = true },
  { "a message too long", UNLIKE, "\22\3\1\64\0\1\255\255\255" ..
    ("\0"):rep(16380) },
  { "a record too long", UNLIKE, "\22\3\1\255\255\1" .. ("\0"):rep(4000) },
  -- Keys that are right, for something else.
  { "another line than its key is for",
    "a line that is not what its key is for", acts = function(stage, from)
      local bob = secured.connect(stage.relay, "t/bob", stage.tokens.bob.key,
        { from = from }):prove()
      bob:say("RELAY/1 ACCEPT session=%s id=%s", stage.agents.bob.session,
        stage.waiting.id)
      return bob
    end },
  { "another id than its key is for",
    "a line that is not what its key is for", acts = function(stage, from)
      local alice = stage.agents.alice
      local data = alice:data(("w/%s/1"):format(alice.session),
        { from = from }):prove()
      data:say("RELAY/1 ACCEPT session=%s id=%s", alice.session,
        stage.waiting.id)
      return data
    end },
  { "an id used twice", "no such visitor", acts = function(stage, from)
      return stage.agents.alice:accept(stage.joined.id, { from = from })
    end },
  { "a hello after the handshake", nil, -- with a proven key it is no fault
    acts = function(stage, from)
      local bob = secured.connect(stage.relay, "t/bob", stage.tokens.bob.key,
        { from = from }):prove()
      bob:send(alice_hello(stage))
      return bob
    end },
}

-- To one without.
hostile.open = {
  { "TLS", "a TLS handshake", claims("t/alice") },
  { "TLS 1.2 to none", "a TLS handshake", function()
      return secured.hello(nil, nil, { version = "1.2" })
    end },
  { "a line out of place", "a line that does not open a connection",
    "PING n=1\n" },
  { "another's id", "the id of another agent's visitor", function(stage)
      return ("RELAY/1 ACCEPT session=%s id=%s\n"):format(
        stage.agents.bob.session, stage.waiting.id)
    end },
  { "an id that is none", "no such visitor", free = true, function(stage)
      return ("RELAY/1 ACCEPT session=%s id=%s\n"):format(
        stage.agents.bob.session, ZERO)
    end },
  { "an id used twice in plain", "no such visitor", free = true, function(stage)
      return stage.joined.sent
    end },
  { "an id burned in plain", "no such visitor", free = true, function(stage)
      return stage.burned.sent
    end },
}

return hostile
