-- SPDX-License-Identifier: MIT
--
-- Credentials in `auth`: agents with a token, whose key comes from the script,
-- from the tokens file, or from nowhere. Only a proven key lets in.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")

local T = { limit = 60 }

-- A tokens file with one token: the file, the token, and its key as in it.
local function make_token(id)
  local file = h.tmpdir() .. "/tokens"
  local token = h.output_of({ h.program("relay"), "token", "new", id,
    "--tokens", file }):match("^(%S+)\n$")
  return file, token, h.read_file(file):match("\n?" .. id .. " key=(%x+)")
end

local function enter(relay, token)
  return h.start_echoserver(relay, { env = { RELAY_TOKEN = token } })
end

-- An agent that is not let in; what it says of it.
local function refused(relay, token)
  local result = h.run({ h.program("echoserver"), "localhost", relay.port,
    "--once", env = { RELAY_TOKEN = token } })
  lu.assertEquals({ result.status, result.stdout }, { 1, "" })
  return result.stderr
end

-- The script has the key; there is no tokens file.
function T.test_a_key_of_the_script()
  local _, token, key = make_token("office")
  local _, stranger = make_token("stranger")
  local _, impostor = make_token("office")
  local relay = policy.relay(([[return { auth = function(agent, cred)
    print("asked", cred.id, cred:known())
    if cred.id ~= "office" then return false, "a stranger" end
    relay.sleep(0.05)
    local ok = cred:verify("%s")
    print("proven", ok)
    return ok, "the " .. cred.id
  end }]]):format(key))
  local agent = enter(relay, token)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  relay:wait_log("asked office false\n.*proven true\n")
  local words = refused(relay, stranger)
  lu.assertEquals(refused(relay, impostor), words)
  lu.assertEquals(policy.count(relay, "proven"), 1)
  relay:wait_log('agent refused [^\n]*token=stranger reason="a stranger"')
  agent:stop()
  relay:stop()
end

-- As bytes, and out of a redis-like store that takes its time.
function T.test_a_key_as_bytes()
  local _, token, key = make_token("a")
  local relay = policy.relay(([[return { auth = function(agent, cred)
    local bytes = ("%s"):gsub("%%x%%x", function(hex)
      return string.char(tonumber(hex, 16))
    end)
    return cred:verify(bytes)
  end }]]):format(key))
  lu.assertEquals(policy.ask(enter(relay, token), "hello"), "hello")
end

-- `true` alone has the agent prove the key of the file.
function T.test_the_tokens_file_has_the_key()
  local file, token = make_token("office")
  local _, impostor = make_token("office")
  local relay = policy.relay([[return { auth = function(agent, cred)
    print("known", cred:known())
    return cred:known()
  end }]], { "--tokens", file })
  lu.assertEquals(policy.ask(enter(relay, token), "hello"), "hello")
  relay:wait_log("known true")
  refused(relay, impostor)
end

function T.test_nil_denies_with_the_right_key_too()
  local file, token = make_token("office")
  local relay = policy.relay("return { auth = function() end }",
    { "--tokens", file })
  refused(relay, token)
end

function T.test_faults()
  local file, token = make_token("office")
  local relay = policy.relay([[
    local tries = {
      function(cred) return cred:verify("short") end,
      function(cred) return cred:verify(("x"):rep(64)) end,
      function(cred) cred:verify(("0"):rep(64)) return cred:verify("") end,
      function(cred) error("no") end,
      function(cred) return 1 end,
      function(cred) relay.sleep(60) end,
    }
    return { auth = function(agent, cred)
      return tries[relay.kv.incr("n")](cred)
    end }]], { "--tokens", file, "--hook-agent", "200ms" })
  for _ = 1, 6 do
    refused(relay, token)
  end
  relay:wait_log("bad argument #1 to 'verify' %(a key is 32 bytes, or 64 " ..
    "hexadecimal digits%)")
  relay:wait_log("policy%.lua:5: no")
  relay:wait_log("auth returned a number")
end

-- While some wait for a key, others come in.
function T.test_waiting_holds_up_nobody()
  local file, token = make_token("slow")
  h.output_of({ h.program("relay"), "token", "new", "quick", "--tokens", file })
  local _, quick, key = make_token("quick")
  local relay = policy.relay(([[return { auth = function(agent, cred)
    if cred.id == "quick" then return cred:verify("%s") end
    while not relay.kv.get("go") do relay.sleep(0.05) end
    return cred:known()
  end, visitor = function(conn)
    if conn.addr == "127.0.0.66" then relay.kv.set("go", 1) end
  end }]]):format(key), { "--tokens", file, "--hook-agent", "60s" })
  local slow = {}
  for i = 1, 20 do
    slow[i] = h.start_echoserver(relay, { "--name", "n" .. i, wait = false,
      env = { RELAY_TOKEN = token } })
  end
  local agent = enter(relay, quick)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  lu.assertEquals(policy.count(relay, "address established"), 1)
  h.connect(agent, { from = "127.0.0.66" }):close()
  for i = 1, 20 do
    slow[i]:wait_line("^established")
  end
end

return T
