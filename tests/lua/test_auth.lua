-- SPDX-License-Identifier: MIT
--
-- Every way in which `auth` can fail, met by agents that hold a right key: none
-- of them gets in, and none leaves anything. From outside one way looks
-- like another: where no key was proven, all are answered the same bytes.

local lu = require("luaunit")
local h = require("harness")
local hostile = require("hostile")
local policy = require("policy")
local secured = require("secured")

local T = { limit = 60 }

local PRELUDE <const> = 'local KEY = "%s" '

-- What is told of a key has to come within that time, however slow all is.
local LATE <const> = h.seconds(2) .. "s"

-- A relay whose `auth` is this, with a tokens file that has alice, and her.
local function stage(auth, options)
  local file, tokens = secured.tokens({ "alice" })
  local script = PRELUDE:format(secured.hex(tokens.alice.key)) ..
    ("return { auth = function(agent, cred) %s end }"):format(auth)
  options = options or { "--hook-agent", "60s" }
  for _, option in ipairs({ "--tokens", file, "--penalties", "off" }) do
    table.insert(options, option)
  end
  local relay = policy.relay(script, options)
  return relay, tokens.alice
end

local function connect(relay, alice)
  return secured.connect(relay, "t/alice", alice.key)
end

-- It is refused before any key counts, as a wrong key is.
local function refused(relay, alice)
  local agent = connect(relay, alice)
  lu.assertNotEquals(agent:shake(), "open")
  agent:fill()
  lu.assertEquals(agent.answer, hostile.ALERT)
  agent:close()
end

-- It has proven its key, and is told no.
local function denied(relay, alice)
  local agent = connect(relay, alice):prove()
  local answer = agent:hear()
  lu.assertEquals({ answer.verb, answer.code, answer.final, answer.reason },
    { "ERR", "denied", "yes", "denied by policy" })
  lu.assertEquals(select(2, agent:hear()), "eof")
  agent:close()
end

local function expect_nothing_left(relay, sockets)
  policy.await_sockets(relay, sockets)
  relay:stop() -- with no question open it is quick
end

-- { NAME, what `auth` does, what is logged, what the agent meets, and the time
-- that it has }
local ways = {
  { "nil", "", "denied by policy", refused },
  { "false", "return false, 'we know'", "we know", refused },
  { "error", "error('oh no')", "oh no", refused },
  { "error_after_waiting", "relay.sleep(0.02) error('oh no')", "oh no",
    refused },
  { "number", "return 1", "auth returned a number", refused },
  { "text", "return 'yes'", "auth returned a string", refused },
  { "table", "return {}", "auth returned a table", refused },
  { "name_that_is_none", "return true, {}", "the name is a string", refused },
  { "wrong_type_after_waiting", "relay.sleep(0.02) return 0",
    "auth returned a number", refused },
  { "time_out", "relay.sleep(60)", "the policy took too long", refused,
    "300ms" },
  { "no_end", "while true do end", "policy hook failed hook=auth", refused },
  { "key_too_short", "return cred:verify(KEY:sub(2))", "a key is 32 bytes",
    refused },
  { "key_too_long", "return cred:verify(KEY .. '00')", "a key is 32 bytes",
    refused },
  { "key_of_no_digits", "return cred:verify(('g'):rep(64))",
    "a key is 32 bytes", refused },
  { "key_that_is_none", "return cred:verify('')", "a key is 32 bytes",
    refused },
  { "key_that_is_nil", "return cred:verify(nil)", "bad argument", refused },
  { "key_that_is_a_table", "return cred:verify({})", "bad argument", refused },
  { "wrong_key", "return cred:verify(('0'):rep(64))", "wrong key", refused },
  { "verify_without_cred", "local verify = cred.verify return verify()",
    "bad argument", refused },
  { "bad_key_caught", "pcall(cred.verify, cred, 'short')", "denied by policy",
    refused },
  { "verify_twice", "return cred:verify(KEY) and cred:verify(KEY)",
    "a key was given before", denied },
  { "another_key_then", "cred:verify(KEY) return cred:verify(('0'):rep(64))",
    "a key was given before", denied },
  { "verify_then_deny", "cred:verify(KEY) return false, 'not today'",
    "not today", denied },
  { "verify_then_nil", "cred:verify(KEY)", "denied by policy", denied },
  { "verify_then_error", "cred:verify(KEY) error('oh no')", "oh no", denied },
  { "verify_then_time_out", "cred:verify(KEY) relay.sleep(60)",
    "the policy took too long", denied, LATE },
}

for _, way in ipairs(ways) do
  T["test_" .. way[1]] = function()
    local relay, alice = stage(way[2], { "--hook-agent", way[5] or "60s" })
    local sockets = policy.sockets(relay)
    way[4](relay, alice)
    relay:wait_log("[^\n]*" .. way[3]:gsub("%p", "%%%0"))
    way[4](relay, alice) -- the first left nothing that matters
    lu.assertEquals(policy.count(relay, "address established"), 0)
    expect_nothing_left(relay, sockets)
  end
end

function T.test_absent()
  local file, tokens = secured.tokens({ "alice" })
  local relay = policy.relay("return { visitor = function() end }",
    { "--tokens", file })
  secured.agent(relay, "alice", tokens.alice.key):close()
  refused(relay, { key = ("0"):rep(32) })
end

-- `true` without a key to prove is what the tokens file says, and no more.
function T.test_true_is_no_key()
  local relay = stage("return true")
  refused(relay, { key = ("0"):rep(32) })
  local agent = secured.connect(relay, "t/nobody", ("0"):rep(32))
  lu.assertNotEquals(agent:shake(), "open")
  agent:close()
  lu.assertEquals(policy.count(relay, "address established"), 0)
end

-- ---- what happens meanwhile -------------------------------------------------

-- The agent goes while it is waited for, here and there: the hook is ended, and
-- its end is heard of.
function T.test_the_agent_leaves_meanwhile()
  for _, auth in ipairs({
    "print('asked') relay.sleep(60) print('went on')",
    "print('asked') cred:verify(KEY) print('went on')",
    "cred:verify(KEY) print('asked') relay.sleep(60) print('went on')",
  }) do
    local relay, alice = stage(auth, { "--hook-agent", "60s" })
    local sockets = policy.sockets(relay)
    local agent = secured.connect(relay, "t/alice", alice.key)
    agent:send(agent.tls:shake())
    if auth:find("^cred") then
      agent:send(agent.tls:shake(agent.socket:recv()))
    end
    relay:wait_log("asked")
    agent.socket:reset()
    expect_nothing_left(relay, sockets)
    lu.assertEquals(policy.count(relay, "went on"), 0)
    lu.assertEquals(policy.count(relay, "address established"), 0)
  end
end

-- A reload meanwhile: who was asked by the script of before is judged by it,
-- whether it lets in or not, and who comes then by the new one.
function T.test_a_reload_meanwhile()
  local relay, alice = stage("print('asked') relay.sleep(0.2) " ..
    "return cred:verify(KEY)", { "--hook-agent", "10s" })
  local first = connect(relay, alice)
  first:send(first.tls:shake())
  relay:wait_log("asked")
  policy.reload(relay, "return { auth = function() " ..
    "relay.sleep(0.2) return false, 'by the new one' end }")
  local second = connect(relay, alice)
  second:send(second.tls:shake())
  local out, how = first.tls:shake(first.socket:recv())
  lu.assertEquals(how, "open")
  first:send(out)
  first:say("RELAY/1 LISTEN")
  lu.assertEquals(first:hear().verb, "OK")
  second:fill()
  lu.assertEquals(second.answer, hostile.ALERT)
  relay:wait_log("agent refused [^\n]*by the new one")
  first:close()
  second:close()
end

function T.test_a_reload_meanwhile_that_denies()
  local relay, alice = stage("print('asked') relay.sleep(0.2) " ..
    "return false, 'by the old one'", { "--hook-agent", "10s" })
  local agent = connect(relay, alice)
  agent:send(agent.tls:shake())
  relay:wait_log("asked")
  policy.reload(relay, ("return { auth = function(_, cred) " ..
    "return cred:verify('%s') end }"):format(secured.hex(alice.key)))
  agent:fill()
  lu.assertEquals(agent.answer, hostile.ALERT)
  agent:close()
  relay:wait_log("agent refused [^\n]*by the old one")
  secured.agent(relay, "alice", alice.key):close()
end

-- The script's end of an old one is bounded; a hook that it has to give up on
-- lets nobody in.
function T.test_a_stop_meanwhile()
  local relay, alice = stage("print('asked') relay.sleep(60) return true",
    { "--hook-agent", "60s" })
  local agent = connect(relay, alice)
  agent:send(agent.tls:shake())
  relay:wait_log("asked")
  relay:stop()
  local bytes = agent.socket:recv_all()
  lu.assertTrue(#bytes <= #hostile.ALERT)
  agent:close()
end

-- ---- the agent's own words --------------------------------------------------

-- What `echoserver` tells is the same for all of them.
function T.test_an_agent_is_told_the_same()
  local words
  for _, auth in ipairs({ "", "return false, 'we know'", "error('oh no')",
    "relay.sleep(60)", "return cred:verify(('0'):rep(64))" }) do
    local relay, alice = stage(auth,
      { "--hook-agent", auth:find("sleep", 1, true) and "300ms" or "60s" })
    local result = h.run({ h.program("echoserver"), "localhost", relay.port,
      "--once", env = { RELAY_TOKEN = alice.token } })
    lu.assertEquals({ result.status, result.stdout }, { 1, "" })
    local said = result.stderr:gsub("localhost:%d+", "RELAY")
    lu.assertEquals(said, words or said)
    words = said
    lu.assertNotStrContains(said, "we know")
    relay:stop()
  end
  lu.assertStrContains(words, "the token was not accepted")
end

return T
