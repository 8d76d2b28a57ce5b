-- SPDX-License-Identifier: MIT
--
-- What somebody who hears all of an agent's leg can make of it: nothing of what
-- is carried, nothing that opens anything, and of who was refused not why.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local secured = require("secured")
local tap = require("tap")
local sys = h.sys

local T = { limit = 60 }

-- ---- what must not be read --------------------------------------------------

-- Bytes as they could stand on the wire: as they are, and as text.
local function forms(bytes)
  local hex = secured.hex(bytes)
  return { bytes, hex, hex:upper(), secured.base64url(bytes),
           (bytes:gsub("-", "+"):gsub("_", "/")) }
end

local function expect_unseen(seen, secrets)
  for name, bytes in pairs(secrets) do
    for _, form in ipairs(forms(bytes)) do
      lu.assertNil(seen:find(form, 1, true), name .. " is seen")
    end
  end
end

local function bytes_of(hex)
  return (hex:gsub("%x%x", function(byte)
    return string.char(tonumber(byte, 16))
  end))
end

-- An agent in the test, with all that it knows, through the tap: its words, a
-- visitor for which it connects, one that a waiting connection takes.
function T.test_no_secret_is_readable()
  local file, tokens = secured.tokens({ "alice" })
  local relay = h.start_relay({ "--tokens", file })
  local alice = secured.agent(relay, "alice", tokens.alice.key,
    { words = "name=the-name pool=1 features=some" })
  local visitor, id = secured.visitor(alice)
  local data = alice:accept(id)
  visitor:send("the words of a visitor")
  lu.assertEquals(data:read(22), "the words of a visitor")
  data:write("the words of a service")
  lu.assertEquals(visitor:recv_exact(22), "the words of a service")
  local idle = alice:data(("w/%s/1"):format(alice.session)):prove()
  idle:say("RELAY/1 WAIT session=%s n=1", alice.session)
  local second = h.connect(alice.port)
  local message = assert(idle:hear())
  second:send("what a second one says")
  lu.assertEquals(idle:read(22), "what a second one says")
  local seen = {}
  for _, one in ipairs({ alice, data, idle }) do
    table.insert(seen, one.sent .. one.answer)
  end
  local all = table.concat(seen)
  expect_unseen(all, {
    ["the token's secret"] = tokens.alice.token:match("%.(.*)$"),
    ["the token's key"] = tokens.alice.key,
    ["the session's key"] = alice.key,
    ["the data connection's key"] = sys.hmac(alice.key, "v/" .. id),
    ["the ticket"] = alice.ok.resume,
    ["the id of a visitor that was told"] = message.id,
    ["its words"] = "the words of a visitor",
    ["its service's words"] = "the words of a service",
    ["a second one's words"] = "what a second one says",
    ["the name"] = "the-name",
    ["a verb"] = "LISTEN", ["a word"] = "session=",
  })
  -- On control there is not even an id; on its own connection a visitor's is
  -- the name of the key, which is spent there.
  for name, hex in pairs({ visitor = id, session = alice.session }) do
    for _, form in ipairs(forms(bytes_of(hex))) do
      lu.assertNil(seen[1]:find(form, 1, true), name .. " is seen on control")
    end
  end
  lu.assertNotNil(seen[2]:find("v/" .. id, 1, true))
  for _, one in ipairs({ alice, data, idle, visitor, second }) do
    one:close()
  end
end

-- ---- what another agent hears -----------------------------------------------

-- What an agent hears of heartbeats: PING and a number that is its own count.
local function pings_of(agent)
  local numbers = {}
  for n in agent.heard:gmatch("PING n=(%d+)") do
    table.insert(numbers, math.tointeger(n))
  end
  return numbers
end

-- Two agents of two tokens, both busy: no name, ticket, id or byte of one gets
-- to the other, and no number from which it could tell that there is another.
function T.test_two_tenants_hear_nothing_of_each_other()
  local file, tokens = secured.tokens({ "alice", "bob" })
  local relay = h.start_relay({ "--tokens", file, "--heartbeat", "100ms" })
  local agents, secrets = {}, { alice = {}, bob = {} }
  for _, id in ipairs({ "alice", "bob" }) do
    local agent = secured.agent(relay, id, tokens[id].key)
    agents[id] = agent
    secrets[id] = { id, agent.ok.resume, agent.session }
  end
  for i = 1, 10 do
    for id, agent in pairs(agents) do
      local visitor, number = secured.visitor(agent)
      local data, words = agent:accept(number), ("%s's %d words"):format(id, i)
      visitor:send(words)
      lu.assertEquals(data:read(#words), words)
      visitor:close()
      agent.heard = agent.heard .. data.heard
      data:close()
      table.insert(secrets[id], number)
      table.insert(secrets[id], words)
    end
  end
  h.wait_until("three heartbeats of each", function()
    for _, agent in pairs(agents) do
      agent:hear(0.01)
    end
    return #pings_of(agents.alice) >= 3 and #pings_of(agents.bob) >= 3
  end)
  for id, other in pairs({ alice = "bob", bob = "alice" }) do
    for _, text in ipairs(secrets[other]) do
      lu.assertNil(agents[id].heard:find(text, 1, true), text)
    end
    lu.assertNotNil(agents[id].heard:find(secrets[id][4], 1, true))
    for i, n in ipairs(pings_of(agents[id])) do
      lu.assertEquals(n, i)
    end
  end
  for _, agent in pairs(agents) do
    agent:close()
  end
end

-- ---- what a refusal tells ---------------------------------------------------

-- The records in some bytes of TLS: each its kind and length.
local function records_of(bytes)
  local list, at = {}, 1
  while at <= #bytes do
    local kind, length = (">B xx I2"):unpack(bytes, at)
    table.insert(list, ("%d:%d"):format(kind, length))
    at = at + 5 + length
  end
  return table.concat(list, " ")
end

-- A real agent with this token, through a tap: all the relay's bytes, the sizes
-- of its own, its status and its words.
local function refusal(relay, token)
  local wire = tap.open(relay)
  local agent = h.start_echoserver(wire:port(), { wait = false, expect = 1,
    env = { RELAY_TOKEN = token } })
  wire:turn_until("it gives up", function()
    return not agent:running()
  end)
  lu.assertEquals(#wire.answers, 1, "it came once")
  local seen = {
    answer = secured.hex(wire.answers[1]),
    records = records_of(wire.answers[1]),
    asked = records_of(wire.sent[1]),
    words = agent:log():gsub("localhost:%d+", "RELAY"),
  }
  agent:wait()
  wire:close()
  return seen
end

-- All ids have the same length: theirs is no secret, and it is in the question.
local POLICY <const> = [[
  return { auth = function(_, cred)
    if cred.id == "hook_soon" then return false, "denied at once" end
    if cred.id == "hook_late" then
      relay.sleep(0.1)
      return false, "denied late"
    end
    if cred.id == "hook_fail" then error("it fails") end
    if cred.id == "hook_none" then return nil end
    if cred.id == "hook_long" then relay.sleep(60) end
    if cred.id == "hook_keys" then return cred:verify(("0"):rep(64)) end
    return true
  end }]]

function T.test_a_refusal_does_not_tell_why()
  local ids = { "tok_right", "tok_wrong", "tok_revok", "tok_expir",
                "hook_soon", "hook_late", "hook_fail", "hook_none",
                "hook_long", "hook_keys" }
  local file, tokens = secured.tokens(ids)
  local nobody = tokens.tok_wrong.token:gsub("^[^.]*", "tok_nobod")
  local wrong = "tok_wrong." .. tokens.tok_right.token:match("%.(.*)$")
  h.output_of({ h.program("relay"), "token", "revoke", "tok_revok",
    "--tokens", file })
  h.write_file(file, (h.read_file(file):gsub("(tok_expir key=[^\n]*)",
    "%1 expires=2020-01-01T00:00:00Z")))
  for _, script in ipairs({ POLICY, false }) do
    local options = { "--tokens", file, "--penalties", "off",
      "--hook-agent", "200ms" }
    local relay = script and policy.relay(script, options) or
      h.start_relay(options)
    local first = refusal(relay, wrong)
    lu.assertEquals(first.records, "21:2")
    lu.assertNotStrContains(first.asked, "23:", false, "no more is said")
    for _, token in ipairs({ nobody, tokens.tok_revok.token,
                             tokens.tok_expir.token }) do
      lu.assertEquals(refusal(relay, token), first)
    end
    for _, id in ipairs(script and ids or {}) do
      if id:find("^hook") then
        lu.assertEquals(refusal(relay, tokens[id].token), first, id)
      end
    end
    -- Why is in the log, where only the operator sees it.
    for _, why in ipairs({ "wrong key", "unknown token", "token is revoked",
                           "token has expired" }) do
      relay:wait_log(('connection refused from=%%S+ reason="%s"'):format(why))
    end
    relay:stop()
  end
end

return T
