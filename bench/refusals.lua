-- SPDX-License-Identifier: MIT
--
-- Whether the time that a refusal takes tells its cause: the same handshake is
-- refused for one cause and another, in a fresh order each round. Two relays,
-- with a tokens file alone and with an `auth` hook before it. Causes are
-- compared within what a name begins with, which anybody can see: tokens to a
-- token's wrong key, visitors to that of one that waits. How far apart two sets
-- of the same cause are is what noise is.

local here = arg[0]:match("^(.*)/[^/]*$")
local build = os.getenv("RELAY_TEST_BUILD")
package.cpath = build .. "/tests/?.so;" .. package.cpath
package.path = here .. "/?.lua;" .. here .. "/../tests/lua/?.lua;" ..
  package.path

local h = require("harness")
local secured = require("secured")
local summary = require("summary")
local sys = h.sys

local ROUNDS <const> = arg[1] == "quick" and 50 or tonumber(arg[1] or 1000)
local WARM <const> = 20

-- All ids have one length, so that all questions do.
local HOOK <const> = [[return { auth = function(_, cred)
  if cred.id == "denied" then return false, "no" end
  return true
end }]]

local file, tokens = secured.tokens({ "rights", "others", "denied", "revoke",
  "expire" })
h.output_of({ h.program("relay"), "token", "revoke", "revoke", "--tokens",
  file })
h.write_file(file, (h.read_file(file):gsub("(expire key=[^\n]*)",
  "%1 expires=2020-01-01T00:00:00Z")))

local function cause(name, identity, key)
  return { name = name, identity = identity, key = key, times = {} }
end

-- The first of each space is what the others are compared to.
local function causes(waiting, with_hook)
  local list = {
    cause("wrong key", "t/rights", tokens.others.key),
    cause("wrong key, again", "t/rights", tokens.others.key),
    cause("unknown token", "t/nobody", tokens.others.key),
    cause("revoked token", "t/revoke", tokens.revoke.key),
    cause("expired token", "t/expire", tokens.expire.key),
    cause("wrong visitors key", "v/" .. waiting, tokens.others.key),
    cause("unknown visitor", "v/" .. ("0"):rep(#waiting), tokens.others.key),
  }
  if with_hook then
    table.insert(list, cause("denied by the hook", "t/denied",
      tokens.denied.key))
  end
  return list
end

-- Microseconds from the last byte of the question to the end of the answer.
local function try(relay, one)
  local hello = secured.hello(one.identity, one.key)
  local socket = h.connect(relay, { nodelay = true })
  sys.sleep(0.0002) -- the relay has accepted it, and waits
  local began = sys.now()
  socket:send(hello)
  local answer = socket:recv()
  local took = (sys.now() - began) * 1e6
  socket:reset()
  assert(#answer == 7, "not an alert and nothing else")
  return took
end

-- What a cause's space is compared to.
local function yardstick(list, one)
  for _, other in ipairs(list) do
    if other.identity:sub(1, 1) == one.identity:sub(1, 1) then
      return other
    end
  end
end

local function shuffle(list)
  for i = #list, 2, -1 do
    local j = math.random(i)
    list[i], list[j] = list[j], list[i]
  end
end

local function report(title, list)
  print(("%s, %d rounds%27s %9s %22s"):format(title, ROUNDS, "median", "p95",
    "to a wrong key, median"))
  for _, one in ipairs(list) do
    local differences, other = {}, yardstick(list, one)
    for i, took in ipairs(one.times) do
      differences[i] = took - other.times[i]
    end
    print(("  %-22s %15.1f us %6.1f us  %+6.2f us [%+.2f, %+.2f]"):format(
      one.name, summary.median(one.times),
      summary.percentile(one.times, 0.95), summary.median(differences),
      summary.interval(differences)))
  end
end

local function measure(title, with_hook)
  local options = { "--tokens", file, "--penalties", "off", "--listen",
    "127.0.0.1", "--log-level", "error", "--pairing", "1h", "--dead", "2h",
    "--heartbeat", "1h" }
  if with_hook then
    table.insert(options, "--script")
    table.insert(options, h.write_file(h.tmpdir() .. "/policy.lua", HOOK))
  end
  local relay = h.start_relay(options)
  local agent = secured.agent(relay, "rights", tokens.rights.key)
  local visitor, waiting = secured.visitor(agent)
  local list = causes(waiting, with_hook)
  local order = { table.unpack(list) }
  for round = 1 - WARM, ROUNDS do
    shuffle(order)
    for _, one in ipairs(order) do
      local took = try(relay, one)
      if round > 0 then
        table.insert(one.times, took)
      end
    end
  end
  report(title, list)
  visitor:close()
  agent:close()
  relay:stop()
end

measure("a tokens file", false)
measure("an auth hook", true)
local problems = h.teardown()
if problems then
  print(problems)
  os.exit(1)
end
