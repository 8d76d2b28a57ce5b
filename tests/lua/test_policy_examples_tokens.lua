-- SPDX-License-Identifier: MIT
--
-- Example policies that decide by an agent's token.

local lu = require("luaunit")
local example = require("example")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local secured = require("secured")

local T = { limit = 60 }

local function new_token(file, id)
  return h.output_of({ h.program("relay"), "token", "new", id, "--tokens",
    file }):match("^(%S+)\n$")
end

local function enter(relay, token, options)
  options = options or {}
  options.env = { RELAY_TOKEN = token }
  return h.start_echoserver(relay, options)
end

-- What one that is not let in says.
local function refused(relay, token, ...)
  local result = h.run({ h.program("echoserver"), "localhost", relay.port,
    "--once", env = { RELAY_TOKEN = token }, ... })
  lu.assertEquals({ result.status, result.stdout }, { 1, "" })
  return result.stderr
end

-- ---- tokens -----------------------------------------------------------------

function T.test_tokens()
  local file = h.tmpdir() .. "/tokens"
  local office, guest = new_token(file, "office"), new_token(file, "guest")
  local stranger = new_token(h.tmpdir() .. "/tokens", "office")
  local low = real.free_port()
  local relay = example.relay("tokens", { "--tokens", file, change = {
    ["8100, 8109"] = ("%d, %d"):format(low, low + 1) } })
  local first = enter(relay, office)
  lu.assertEquals(first.port, low)
  lu.assertEquals(policy.ask(first, "hello"), "hello")
  local any = enter(relay, guest)
  lu.assertEquals(policy.ask(any, "hello"), "hello")
  lu.assertStrContains(refused(relay, office, "--port", "9", "--name", "b"),
    ("'office' has the ports %d to %d"):format(low, low + 1))
  refused(relay, stranger)
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  lu.assertStrContains(refused(relay), "denied")
  relay:wait_log('agent refused [^\n]*reason="no good token"')
  first:stop()
  relay:wait_log("office is gone: EOF") -- it is still known whose it was
  any:stop()
  relay:stop()
end

-- ---- redis_auth -------------------------------------------------------------

local function redis_cli(redis, ...)
  return h.output_of({ "redis-cli", "-p", redis.port, ... })
end

function T.test_redis_auth()
  local redis = real.start_redis()
  local file = h.tmpdir() .. "/tokens"
  local office, gone = new_token(file, "office"), new_token(file, "gone")
  local impostor = new_token(h.tmpdir() .. "/tokens", "office")
  redis_cli(redis, "set", "relay:key:office",
    h.read_file(file):match("office key=(%x+)"))
  local relay = example.relay("redis_auth", { change = {
    ["port = 6379"] = "port = " .. redis.port } })
  local agent = enter(relay, office)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  local words = refused(relay, gone)
  lu.assertEquals(refused(relay, impostor), words)
  lu.assertStrContains(refused(relay), "denied")
  relay:wait_log('agent refused [^\n]*token=gone reason="not in redis"')
  -- While redis does not answer: who is in is served, and who asks waits.
  redis_cli(redis, "client", "pause", "700")
  local waiting = {}
  for i = 1, 20 do
    waiting[i] = enter(relay, office, { "--name", "n" .. i, wait = false })
  end
  lu.assertEquals(policy.ask(agent, "still"), "still")
  lu.assertEquals(policy.count(relay, "address established"), 1)
  for _, each in ipairs(waiting) do
    each:wait_line("^established")
  end
  redis_cli(redis, "del", "relay:key:office")
  refused(relay, office, "--name", "late")
  lu.assertEquals(policy.ask(agent, "stays"), "stays")
end

-- A hundred handshakes at once, all of them waiting for Redis but for those
-- without a token: of the four kinds one gets in, and does so whole.
function T.test_redis_auth_among_a_hundred()
  local redis = real.start_redis()
  local file, tokens = secured.tokens({ "office" })
  redis_cli(redis, "set", "relay:key:office", secured.hex(tokens.office.key))
  local relay = example.relay("redis_auth", { "--penalties", "off", change = {
    ["port = 6379"] = "port = " .. redis.port } })
  lu.assertEquals(h.read_file(file):match("office key=(%x+)"),
    secured.hex(tokens.office.key))
  local inside = enter(relay, tokens.office.token)
  local live = example.visit(inside)
  redis_cli(redis, "client", "pause", "700")
  local kinds = {
    { "t/office", tokens.office.key }, { "t/office", ("\1"):rep(32) },
    { "t/nobody", tokens.office.key }, {},
  }
  local tries = {}
  for i = 1, 100 do
    local kind = kinds[1 + i % 4]
    tries[i] = secured.connect(relay, kind[1], kind[2])
    tries[i].kind = kind
    tries[i]:send(kind[1] and tries[i].tls:shake() or "RELAY/1 LISTEN\n")
  end
  for i = 1, 20 do -- meanwhile nobody who is in waits
    live:send("still")
    lu.assertEquals(live:recv_exact(5), "still", i)
  end
  lu.assertEquals(policy.count(relay, "address established"), 1)
  local let_in = 0
  for i, try in ipairs(tries) do
    if try.kind == kinds[1] then
      local out, how = try.tls:shake(try:recv())
      lu.assertEquals(how, "open")
      try:send(out)
      try:say("RELAY/1 LISTEN name=n%d", i)
      lu.assertEquals(try:hear().verb, "OK")
      let_in = let_in + 1
    elseif try.kind[1] then
      lu.assertNotEquals(try:shake(), "open")
    else
      lu.assertStrContains((try.socket:recv_all()), "ERR code=denied final=yes")
    end
  end
  lu.assertEquals(let_in, 25)
  lu.assertEquals(policy.count(relay, "address established"), 26)
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
  for _, try in ipairs(tries) do
    try:close()
  end
  live:close()
end

return T
