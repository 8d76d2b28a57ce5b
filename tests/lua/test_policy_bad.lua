-- SPDX-License-Identifier: MIT
--
-- A corpus of bad scripts, bad/*.lua: each says at its top how it ends. While
-- it does, somebody else's connection goes on, others are served, and in the
-- end the relay is there and its memory is what it was.
--
--   -- end: refused | denied | served   what becomes of the script, or of a
--                                       visitor from 127.0.0.66
--   -- others: denied                   of any other visitor, after that
--   -- says: TEXT                       is in the log; any number of these
--   -- tries: N                         of the bad visitor, at least
--   -- options: --OPTION VALUE …        of the relay
--   -- also: agents | peek | victim | reload   what else is tried, see `also`

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

local MANNERLESS <const> = "127.0.0.66"
-- How often each is tried before its memory is looked at, and after.
local BEFORE <const> = h.stressed and 0 or 2
local AFTER <const> = h.stressed and 1 or 6
local LEAK <const> = 24 << 20

-- ---- what a script says of itself -------------------------------------------

local function read(path)
  local case = { path = path, says = {}, options = {}, also = {} }
  for key, value in h.read_file(path):gmatch("%-%- (%a+): ([^\n]*)") do
    if key == "says" then
      table.insert(case.says, value)
    elseif key == "options" then
      for word in value:gmatch("%S+") do
        table.insert(case.options, word)
      end
    elseif key == "also" then
      case.also[value] = true
    else
      case[key] = value
    end
  end
  return case
end

local function expect_says(case, relay)
  for _, words in ipairs(case.says) do
    h.wait_until(case.path .. " says " .. words, function()
      return relay:log():find(words, 1, true)
    end)
  end
end

-- ---- a script that is not loaded --------------------------------------------

local function try_refused(case)
  local result = h.run({ h.program("relay"), "0", "--script", case.path })
  lu.assertEquals({ result.status, result.stdout }, { 1, "" })
  for _, words in ipairs(case.says) do
    lu.assertStrContains(result.stderr, words)
  end
  lu.assertStrContains(result.stderr, case.path)
end

-- ---- one that is ------------------------------------------------------------

-- Seconds that these have waited for a CPU so far: no script's fault. 0 where
-- the kernel does not count them.
local function queued(pids)
  local seconds = 0
  for _, pid in ipairs(pids) do
    local file = io.open(("/proc/%s/schedstat"):format(pid))
    if file then
      seconds = seconds + tonumber(file:read("a"):match("^%d+ (%d+)")) / 1e9
      file:close()
    end
  end
  return seconds
end

-- The bad visitor's fate, and how long somebody else was held up meanwhile.
local function suffer(relay, agent, live)
  local pids = { relay:pid(), agent:pid(), "self" }
  local visitor = sys.connect("127.0.0.1", agent.port, { from = MANNERLESS })
  local worst = 0
  if not visitor then
    return "reset", worst
  end
  visitor:send("hello")
  visitor:shutdown()
  repeat
    local began = sys.now() - queued(pids)
    live:send("x")
    lu.assertEquals(live:recv_exact(1), "x")
    worst = math.max(worst, sys.now() - queued(pids) - began)
  until visitor:wait("r", 0)
  local text, why = visitor:recv_all()
  visitor:close()
  return text == "hello" and "served" or why, worst
end

-- Seconds that nobody may be held up for: a few entries of the script.
local function patience(case)
  local budget = 0.02
  for i, word in ipairs(case.options) do
    if word == "--script-budget" then
      budget = tonumber(case.options[i + 1]:match("^(%d+)s$"))
    end
  end
  return h.seconds(0.5 + 2 * budget)
end

local function try_once(case, relay, agent, live)
  local fate, worst = suffer(relay, agent, live)
  lu.assertEquals(fate, case["end"] == "served" and "served" or "reset")
  lu.assertTrue(worst < patience(case), worst)
end

local also = {}

function also.agents(relay)
  for name, code in pairs({ bad = "denied", worse = "port-refused" }) do
    local agent = typed.agent(relay, { words = "name=" .. name,
                                       refused = true })
    lu.assertEquals(agent.err.code, code)
  end
end

function also.peek(_, agent)
  local visitor = sys.connect("127.0.0.1", agent.port, { from = "127.0.0.67" })
  if not visitor then
    return -- the reset was there first
  end
  visitor:send("hello")
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  visitor:close()
end

function also.reload(relay)
  relay:kill("HUP")
  relay:wait_log("policy not reloaded")
end

local function try_running(case)
  local relay = h.start_relay({ "--script", case.path, "--script-memory", "16M",
                                table.unpack(case.options) })
  if case.also.victim then
    h.start_echoserver(relay, { "--name", "victim", expect = "any" })
  end
  local agent = h.start_echoserver(relay)
  local live = h.connect(agent)
  live:send("x")
  lu.assertEquals(live:recv_exact(1), "x")
  for _ = 1, BEFORE do
    try_once(case, relay, agent, live)
  end
  local before = relay:usage().rss
  for _ = 1, math.max(AFTER, tonumber(case.tries or 0)) do
    try_once(case, relay, agent, live)
  end
  local leaked = relay:usage().rss - before
  lu.assertTrue(h.sanitized or leaked < LEAK, leaked)
  if case.others == "denied" then
    lu.assertEquals({ policy.ask(agent) }, { "", "reset" })
  else
    h.wait_until("others are served", function()
      return policy.ask(agent, "hello") == "hello"
    end)
  end
  for what in pairs(case.also) do
    if also[what] then
      also[what](relay, agent)
    end
  end
  expect_says(case, relay)
  live:close()
end

-- ---- the corpus -------------------------------------------------------------

local corpus = h.output_of({ "sh", "-c", "ls " .. h.source ..
                             "tests/lua/bad/*.lua" })

for path in corpus:gmatch("[^\n]+") do
  T["test_" .. path:match("([%w_]+)%.lua$")] = function()
    local case = read(path)
    if case["end"] == "refused" then
      try_refused(case)
    else
      try_running(case)
    end
  end
end

return T
