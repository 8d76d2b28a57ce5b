-- SPDX-License-Identifier: MIT
--
-- Example policies that speak with the world outside: a Redis, a web server, a
-- collector of logs.

local lu = require("luaunit")
local example = require("example")
local h = require("harness")
local json = require("cjson")
local policy = require("policy")
local real = require("real")
local sys = h.sys
local typed = require("typed")

local T = { limit = 60 }

function T.tearDown()
  typed.close_all()
end

-- ---- redis_quota ------------------------------------------------------------

local MANY = "too many visits in an hour"

local function redis_cli(redis, ...)
  return h.output_of({ "redis-cli", "-p", redis.port, ... })
end

-- How many are connected, this one aside.
local function clients(redis)
  return select(2, redis_cli(redis, "client", "list"):gsub("\n", "")) - 1
end

local function with_redis(redis, changes)
  changes = changes or {}
  changes["port = 6379"] = "port = " .. redis.port
  changes["timeout = 1"] = "timeout = 60"
  changes["VISITS = 100"] = "VISITS = 3"
  local relay = example.relay("redis_quota", { "--hook-visitor", "2m",
    change = changes })
  relay.change = changes
  return relay, h.start_echoserver(relay)
end

function T.test_redis_quota()
  local redis = real.start_redis()
  local relay, agent = with_redis(redis)
  local other, others_agent = with_redis(redis)
  example.ask(relay, agent.port)
  example.ask(other, others_agent.port)
  example.reload(relay)
  example.ask(relay, agent.port)
  example.denied(relay, agent.port, MANY)
  example.denied(other, others_agent.port, MANY)
  example.ask(relay, agent.port, { from = "127.0.0.2" })
  local keys = redis_cli(redis, "keys", "*")
  local key = keys:match("visits:127%.0%.0%.1:%d+")
  lu.assertEquals(select(2, keys:gsub("visits:", "")), 2)
  lu.assertEquals(redis_cli(redis, "get", key), "5\n")
  local left = tonumber(redis_cli(redis, "ttl", key))
  lu.assertTrue(left > 3500 and left <= 3600, left)
end

-- Connections that lay idle when Redis went are replaced; without it nobody
-- comes in.
function T.test_redis_quota_and_the_end_of_redis()
  local redis = real.start_redis()
  local relay, agent = with_redis(redis)
  example.ask(relay, agent.port)
  example.ask(relay, agent.port, { from = "127.0.0.2" })
  lu.assertEquals(clients(redis), 1)
  redis_cli(redis, "client", "kill", "type", "normal")
  example.ask(relay, agent.port)
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
  redis:kill("KILL")
  redis:wait()
  lu.assertEquals({ policy.ask(agent) }, { "", "reset" })
  relay:wait_log("policy hook failed hook=visitor [^\n]*could not connect")
end

-- A live pair's bytes go through while others wait, and they still wait then.
local function assert_nobody_held_up(live, waiters)
  for _ = 1, 20 do
    live:send("still")
    lu.assertEquals(live:recv_exact(5), "still")
  end
  lu.assertEquals(#sys.poll(waiters, "r", 0), 0)
end

function T.test_redis_quota_holds_up_nobody()
  local redis = real.start_redis()
  local relay, agent = with_redis(redis)
  local live = example.visit(agent)
  redis:kill("STOP")
  local waiter = h.connect(agent)
  waiter:send("hello")
  assert_nobody_held_up(live, { waiter })
  redis:kill("CONT")
  lu.assertEquals(waiter:recv_exact(5), "hello")
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
  waiter:close()
  live:close()
end

-- Many at once, more than connections are kept.
function T.test_redis_quota_of_many_at_once()
  local redis = real.start_redis()
  local relay, agent = with_redis(redis, { ["IDLE = 16"] = "IDLE = 2" })
  local visitors = {}
  for i = 1, 40 do
    visitors[i] = h.connect(agent, { from = "127.0.2." .. i })
    visitors[i]:send("hello")
  end
  for i = 1, 40 do
    lu.assertEquals(visitors[i]:recv_exact(5), "hello")
    visitors[i]:close()
  end
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
  lu.assertEquals(redis_cli(redis, "dbsize"), "40\n")
  h.wait_until("the rest is closed", function()
    return clients(redis) <= 2
  end)
end

-- ---- webhook ----------------------------------------------------------------

-- Takes one request at a listening socket: its path and what its JSON says, and
-- the socket that waits for the answer.
local function hear_request(listener)
  local socket = assert(listener:accept())
  local path = assert(socket:recv_line()):match("^POST (%S+) HTTP/1%.1\r$")
  local length
  repeat
    local line = assert(socket:recv_line())
    length = tonumber(line:lower():match("^content%-length: (%d+)")) or length
  until line == "\r"
  return path, json.decode(assert(socket:recv_exact(length))), socket
end

local function answer(socket, status)
  socket:send("HTTP/1.1 " .. status .. "\r\nContent-Length: 0\r\n" ..
    "Connection: close\r\n\r\n")
  socket:close()
end

local function take_request(listener, status)
  local path, message, socket = hear_request(listener)
  answer(socket, status)
  return path, message
end

-- A relay, an agent, and the two servers: one is asked, one is told.
local function with_servers(changes)
  local asked, told = assert(sys.listen()), assert(sys.listen())
  changes = changes or {}
  changes["127.0.0.1:8088/visitor"] = ("127.0.0.1:%d/visitor"):format(
    asked:port())
  changes["127.0.0.1:8088/ended"] = ("127.0.0.1:%d/ended"):format(told:port())
  changes["http.TIMEOUT = 1"] = "http.TIMEOUT = 5"
  local relay = example.relay("webhook", { "--hook-visitor", "2m",
    change = changes })
  relay.change = changes
  return relay, h.start_echoserver(relay), asked, told
end

-- A visitor, and what the server is asked of it and answers.
local function visit(agent, asked, status)
  local visitor = h.connect(agent)
  visitor:send("hello")
  local path, message = take_request(asked, status)
  lu.assertEquals(path, "/visitor")
  lu.assertEquals(message, { addr = "127.0.0.1", port = agent.port })
  visitor:shutdown()
  local text, how = visitor:recv_all()
  visitor:close()
  return text, how
end

function T.test_webhook()
  local relay, agent, asked, told = with_servers()
  lu.assertEquals(visit(agent, asked, "204 No Content"), "hello")
  local path, message = take_request(told, "200 OK")
  lu.assertEquals(path, "/ended")
  lu.assertIsNumber(message.conn)
  lu.assertIsNumber(message.duration)
  message.conn, message.duration = nil, nil
  lu.assertEquals(message, { addr = "127.0.0.1", port = agent.port,
    bytes_in = 5, bytes_out = 5, reason = "ended" })
  lu.assertEquals({ visit(agent, asked, "403 Forbidden") }, { "", "reset" })
  relay:wait_log('visitor denied [^\n]*reason="webhook: 403"')
  -- Those who were not let in have no end that is told.
  lu.assertNil((told:accept(1.5)))
  asked:close()
  told:close()
  lu.assertEquals({ policy.ask(agent) }, { "", "reset" })
  relay:wait_log('visitor denied [^\n]*reason="webhook: connection refused"')
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
end

function T.test_webhook_holds_up_nobody()
  local relay, agent, asked, told = with_servers()
  local live = h.connect(agent)
  take_request(asked, "200 OK")
  live:send("hello")
  lu.assertEquals(live:recv_exact(5), "hello")
  local waiters, unanswered = {}, {}
  for i = 1, 5 do
    waiters[i] = h.connect(agent)
    unanswered[i] = assert(asked:accept())
  end
  assert_nobody_held_up(live, waiters)
  -- Who gets no answer at all is denied in the end.
  for i = 1, 5 do
    lu.assertEquals({ waiters[i]:recv_all() }, { "", "reset" })
    waiters[i]:close()
    unanswered[i]:close()
  end
  h.wait_until("the log tells of each", function()
    return policy.count(relay, 'reason="webhook: timeout"') == 5
  end)
  live:close()
  asked:close()
  told:close()
end

-- In order, each until it is taken, over a reload too.
function T.test_webhook_tells_until_it_is_heard()
  local relay, agent, asked, told = with_servers({
    ["QUEUE = 10000"] = "QUEUE = 2" })
  for _ = 1, 2 do
    lu.assertEquals(visit(agent, asked, "200 OK"), "hello")
  end
  h.wait_until("both have ended", function()
    return policy.count(relay, "visitor closed") == 2
  end)
  local _, first = take_request(told, "500 Oops")
  example.reload(relay)
  local _, again = take_request(told, "503 Later")
  lu.assertEquals(again, first)
  _, again = take_request(told, "200 OK")
  lu.assertEquals(again, first)
  local _, second = take_request(told, "200 OK")
  lu.assertTrue(second.conn > first.conn)
  lu.assertNil((told:accept(1.5)))
  asked:close()
  told:close()
end

-- What is told while a reload comes is told again; all else is told once.
function T.test_webhook_tells_while_a_reload_comes()
  local relay, agent, asked, told = with_servers()
  for _ = 1, 3 do
    lu.assertEquals(visit(agent, asked, "200 OK"), "hello")
  end
  local _, first, socket = hear_request(told)
  example.reload(relay)
  answer(socket, "200 OK")
  local conns = {}
  for i = 1, 3 do
    conns[i] = select(2, take_request(told, "200 OK")).conn
  end
  lu.assertEquals(conns[1], first.conn)
  lu.assertTrue(conns[1] < conns[2] and conns[2] < conns[3])
  lu.assertNil((told:accept(1.5)))
  asked:close()
  told:close()
end

function T.test_webhook_with_too_much_to_tell()
  local relay, agent, asked, told = with_servers({
    ["QUEUE = 10000"] = "QUEUE = 1", ["every(1, tell)"] = "every(3600, tell)" })
  for _ = 1, 2 do
    lu.assertEquals(visit(agent, asked, "200 OK"), "hello")
  end
  relay:wait_log("error webhook: the end of conn %d+ is not told")
  lu.assertEquals(policy.count(relay, "is not told"), 1)
  asked:close()
  told:close()
end

-- ---- json_log ---------------------------------------------------------------

-- The lines of the log, decoded, that say this.
local function records(relay, message)
  local list = {}
  for line in relay:log():gmatch("[^\n]*\n") do
    lu.assertNotNil(utf8.len(line), line)
    lu.assertEquals(line:find("%c"), #line, line)
    local record = json.decode(line)
    if record.message == message then
      table.insert(list, record)
    end
  end
  return list
end

local function await_record(relay, message)
  return h.wait_until("the log says " .. message, function()
    return records(relay, message)[1]
  end)
end

function T.test_json_log()
  local relay = example.relay("json_log")
  local agent = example.agent(relay, "echo")
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  local record = await_record(relay, "visitor closed")
  lu.assertStrMatches(record.time, "%d+%-%d%d%-%d%dT%d%d:%d%d:%d%dZ")
  lu.assertEquals({ record.severity, record.service }, { "info", "relay" })
  lu.assertEquals({ record.data.bytes_in, record.data.reason },
    { 5, "ended" })
  agent:stop()
  await_record(relay, "agent gone")
  example.agent(relay, "echo"):stop()
  h.wait_until("both are gone", function()
    return #records(relay, "agent gone") == 2
  end)
  lu.assertEquals(records(relay, "address released"), {})
end

-- A name may hold any byte but 0.
function T.test_json_log_of_any_byte()
  local relay = example.relay("json_log")
  local names = { '"', "\\", "a\nb\r\tc", "\27[31m", "\127", "\u{e4}\u{20ac}",
                  "\u{10ffff}\u{2028}", "\xff", "a\xc3", "\xed\xa0\x80",
                  "\xc0\xafx", "\xf5\x80\x80\x80", "{}", "\\u0000" }
  for byte = 1, 255 do
    table.insert(names, string.char(byte))
  end
  for _, name in ipairs(names) do
    typed.agent(relay, { words = "name=" .. typed.encode(name) }):bye()
  end
  h.wait_until("all are told of", function()
    return select(2, relay:log():gsub("agent gone", "")) == #names
  end)
  for i, record in ipairs(records(relay, "address established")) do
    local name = names[i]
    if not utf8.len(name) then
      name = name:gsub("[\x80-\xff]", function(byte)
        return utf8.char(byte:byte())
      end)
    end
    lu.assertEquals(record.data.name, name)
  end
end

return T
