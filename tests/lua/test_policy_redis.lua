-- SPDX-License-Identifier: MIT
--
-- Debian's lua-redis, unmodified, in a policy, against a real redis-server:
-- commands, pipelines, transactions and subscriptions, which make coroutines
-- of their own; and what becomes of a hook that waits for an answer.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")

local T = { limit = 60 }

local function cli(redis, ...)
  return h.output_of({ "redis-cli", "-p", redis.port, ... })
end

local function clients(redis)
  return select(2, cli(redis, "client", "list"):gsub("cmd=", "")) - 1
end

local function await_clients(redis, count)
  h.wait_until(("redis has %d clients"):format(count), function()
    return clients(redis) == count
  end)
end

local function with_redis(redis, script)
  return ([[
    local redis = require "redis"
    local function connect() return redis.connect("127.0.0.1", %d) end
    ]]):format(redis.port) .. script
end

local function run(redis, body)
  return policy.run(with_redis(redis, body))
end

-- ---- the library ------------------------------------------------------------

function T.test_commands()
  local redis = real.start_redis()
  run(redis, [[
    local client = connect()
    assert(client:ping())
    assert(client:get("nothing") == nil)
    assert(client:set("name", "value") == true)
    assert(client:get("name") == "value" and client:exists("name"))
    local bytes = {}
    for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
    bytes = table.concat(bytes):rep(1000)
    client:set("bytes", bytes)
    assert(client:get("bytes") == bytes)
    assert(client:incr("n") == 1 and client:incrby("n", 41) == 42)
    client:hmset("hash", { a = 1, b = 2 })
    local hash = client:hgetall("hash")
    assert(hash.a == "1" and hash.b == "2")
    for i = 1, 1000 do client:rpush("list", i) end
    local list = client:lrange("list", 0, -1)
    assert(#list == 1000 and list[1000] == "1000")
    local ok, why = pcall(client.incr, client, "name")
    assert(not ok and why:find("not an integer"), why)
    assert(client:get("name") == "value")
    local _, port = client.network.socket:getpeername()
    local other = redis.connect(
      ("redis://127.0.0.1:%d/?timeout=5"):format(port))
    assert(other:get("n") == "42")
    assert(client:quit() and other:quit())
    ok, why = pcall(redis.connect, "127.0.0.1", 1)
    assert(not ok and why:find("connection refused"), why)
  ]])
  lu.assertEquals(cli(redis, "get", "n"), "42\n")
end

-- Since Lua 5.3 this library's pipelines fail by themselves, without a policy
-- too, when a command with a plain answer is followed by another. These work.
function T.test_pipeline()
  local redis = real.start_redis()
  run(redis, [[
    local client = connect()
    client:set("here", ("v"):rep(100000))
    local replies, count = client:pipeline(function(p)
      for i = 1, 500 do
        p:exists("here")
        p:incrbyfloat("n", 1)
      end
      p:hgetall("nothing")
      p:get("here")
    end)
    assert(count == 1002 and #replies == 1002, count)
    assert(replies[999] == true and replies[1000] == 500)
    assert(type(replies[1001]) == "table" and #replies[1002] == 100000)
    local ok, why = pcall(client.pipeline, client, function(p)
      p:no_such_command() end)
    assert(not ok and why:find("unknown redis command"), why)
    assert(client:exists("here"))
  ]])
  lu.assertEquals(cli(redis, "get", "n"), "500\n")
end

-- The transaction runs in coroutines of the library, which wait within them
-- and yield for themselves.
function T.test_transactions()
  local redis = real.start_redis()
  run(redis, [[
    local client, other = connect(), connect()
    local replies, count = client:transaction(function(t)
      t:set("a", 1)
      t:incrby("a", 4)
      t:get("a")
    end)
    assert(count == 3 and replies[2] == 5 and replies[3] == "5")

    -- check and set, disturbed once
    local runs = 0
    client:set("balance", 10)
    replies, count = client:transaction({ watch = "balance", cas = true,
      retry = 3 }, function(t)
      runs = runs + 1
      local balance = tonumber(t:get("balance"))
      relay.sleep(0.01)
      if runs == 1 then other:set("balance", 100) end
      t:multi()
      t:set("balance", balance + 1)
      relay.sleep(0.01)
      t:get("balance")
    end)
    assert(runs == 2 and count == 2 and replies[2] == "101", runs)

    -- and always
    local ok, why = pcall(client.transaction, client, { watch = "balance",
      cas = true, retry = 2 }, function(t)
      other:incr("balance")
      t:multi()
      t:set("balance", 0)
    end)
    assert(not ok and why:find("aborted by the server"), why)
    assert(client:get("balance") == "104")

    -- an error in it
    ok, why = pcall(client.transaction, client, function(t)
      t:set("a", 2)
      relay.sleep(0.01)
      error("not so")
    end)
    assert(not ok and why:find("not so"), why)
    assert(client:get("a") == "5")
    local none
    none, count = client:transaction(function() end)
    assert(#none == 0 and count == 0)
  ]])
end

function T.test_subscription()
  local redis = real.start_redis()
  local relay = policy.relay(with_redis(redis, [[return { start = function()
    relay.spawn(function()
      local client = connect()
      for message, abort in client:pubsub { subscribe = { "news" } } do
        print(message.kind, message.channel, message.payload)
        if message.payload == "stop" then abort() end
      end
      print("unsubscribed")
    end) end }]]))
  relay:wait_log("subscribe news 1")
  cli(redis, "publish", "news", "hello")
  relay:wait_log("message news hello")
  cli(redis, "publish", "news", "stop")
  relay:wait_log("unsubscribed")
  relay:stop()
  await_clients(redis, 0)
end

-- ---- hooks ------------------------------------------------------------------

function T.test_hooks_wait_for_redis_and_hold_up_nobody()
  local redis = real.start_redis()
  local relay, agent = policy.scene(with_redis(redis, [[return {
    visitor = function(conn)
      if relay.kv.incr("n") > 50 then return end
      local client = connect()
      client:incr("visitors")
      local got = client:blpop("gate", 0)
      client:quit()
      client.network.socket:close()
      return got[2] == "in"
    end }]]))
  local waiters = {}
  for i = 1, 50 do
    waiters[i] = h.connect(agent)
    waiters[i]:send("waited")
    waiters[i]:shutdown()
  end
  h.wait_until("all wait", function()
    return cli(redis, "get", "visitors") == "50\n"
  end)
  for _ = 1, 20 do
    lu.assertEquals(policy.ask(agent, "quick"), "quick")
  end
  for i = 1, 50 do
    cli(redis, "rpush", "gate", i % 5 == 0 and "out" or "in")
  end
  local answers = { waited = 0, [""] = 0 }
  for i = 1, 50 do
    local text = waiters[i]:recv_all()
    answers[text] = answers[text] + 1
    waiters[i]:close()
  end
  lu.assertEquals(answers, { waited = 40, [""] = 10 })
  await_clients(redis, 0)
  relay:stop()
end

local gate = [[return { visitor = function(conn)
    local client = connect()
    client:incr("visitors")
    return client:blpop("gate", 0)[2] == "in"
  end }]]

-- Neither redis nor the relay keeps a connection for a hook that is no more.
function T.test_the_visitor_leaves()
  local redis = real.start_redis()
  local relay, agent = policy.still_scene(with_redis(redis, gate))
  local before = policy.sockets(relay)
  local visitors = {}
  for i = 1, 10 do
    visitors[i] = h.connect(agent)
  end
  await_clients(redis, 10)
  h.wait_until("all wait", function()
    return cli(redis, "get", "visitors") == "10\n"
  end)
  for i = 1, 10 do
    visitors[i]:reset()
  end
  await_clients(redis, 0)
  policy.await_sockets(relay, before)
  relay:stop()
end

function T.test_redis_dies()
  local redis = real.start_redis()
  local relay, agent = policy.scene(with_redis(redis, gate))
  local visitor = h.connect(agent)
  await_clients(redis, 1)
  redis:kill("KILL")
  redis:wait()
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  relay:wait_log("hook=visitor error=[^\n]*connection error: closed")
  lu.assertEquals({ policy.ask(agent) }, { "", "reset" })
  relay:wait_log("hook=visitor error=[^\n]*connection refused")
  visitor:close()
  relay:stop()
end

-- What goes wrong when hooks share a connection is told, not mixed up.
function T.test_a_shared_connection()
  local redis = real.start_redis()
  run(redis, [[
    local client = connect()
    local other = connect()
    local got
    relay.spawn(function() got = client:blpop("gate", 0) end)
    relay.sleep(0.05)
    local ok, why = pcall(client.get, client, "name")
    assert(not ok and why:find("another hook waits on this socket"), why)
    other:rpush("gate", "in")
    relay.sleep(0.05)
    assert(got[2] == "in")
  ]])
end

return T
