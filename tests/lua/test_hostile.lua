-- SPDX-License-Identifier: MIT
--
-- Hostile handshakes of every kind (hostile.lua), to a relay with tokens and to
-- one without: none is taken, each is refused for what it is, nothing stays
-- behind, and what they aim at does not notice.
--
-- With RELAY_TEST_FULL=1 there are 100 000 for each test, else some thousands:
--   RELAY_TEST_FULL=1 ./dev test --preset release hostile

local lu = require("luaunit")
local h = require("harness")
local hostile = require("hostile")
local stages = require("hostile_stage")
local secured = require("secured")
local typed = require("typed")
local sys = h.sys

local full <const> = os.getenv("RELAY_TEST_FULL") == "1"
local COUNT <const> = full and 100000 or 4000

-- So many are open at a time: of those that are ended at once, and others.
local WINDOW <const>, WINDOW_SLOW <const> = 50, 200

-- A round that adds so much is followed by another, up to so many.
local LEAK <const>, ROUNDS <const> = 1 << 20, 4

local T = { limit = full and 1200 or 300, tearDown = typed.close_all }

-- ---- one kind ---------------------------------------------------------------

local function source(i)
  return ("127.0.%d.%d"):format(2 + i % 3, 1 + i % 11)
end

local function start(stage, kind, i, from)
  from = from or source(i)
  if kind.acts then
    return kind.acts(stage, from).socket
  end
  local what = kind[3]
  local socket = h.connect(stage.relay, { from = from })
  socket:send(type(what) == "string" and what or what(stage, i))
  if kind.fin then
    socket:shutdown()
  end
  return socket
end

-- What is there of an answer; whether that was all.
local function hear(socket)
  local text = ""
  while true do
    local bytes, why = socket:recv(0)
    if not bytes then
      return text, why ~= "timeout"
    end
    text = text .. bytes
  end
end

-- Those that are open have so much time for the relay to end them.
local function settle(open, each)
  local ready = {}
  for _, socket in ipairs(sys.poll(open, "r", h.seconds(10))) do
    ready[socket] = true
  end
  if not next(ready) then
    error(#open .. " of them are not ended")
  end
  for i = #open, 1, -1 do
    local socket = open[i]
    if ready[socket] then
      local text, over = hear(socket)
      open[socket] = open[socket] .. text
      if over then
        each(open[socket])
        open[socket] = nil
        socket:close()
        table.remove(open, i)
      end
    end
  end
end

-- So many of a kind, some at a time; `each` is given what each was answered.
local function attack(stage, kind, count, each)
  local open, begun = {}, 0
  repeat
    while begun < count and #open < (kind.slow and WINDOW_SLOW or WINDOW) do
      begun = begun + 1
      local socket = start(stage, kind, begun)
      open[#open + 1], open[socket] = socket, ""
    end
    settle(open, each)
    stage:beat()
  until begun == count and #open == 0
end

-- ---- what the relay says of it ----------------------------------------------

-- Takes in its log as far as it goes; the reasons of refusals, how many they
-- are, and how many agents got an address.
local function refusals(relay)
  local found, total, agents = {}, 0, 0
  while true do
    local line = relay:read_line(0, "stderr")
    if not line then
      return found, total, agents
    end
    agents = agents + (line:find("address established", 1, true) and 1 or 0)
    local count = line:match("connections refused count=(%d+)")
    if count or line:find("connection refused ", 1, true) then
      local reason = line:match('reason="?([^"]*)"?')
      count = math.tointeger(count or 1)
      found[reason] = (found[reason] or 0) + count
      total = total + count
    end
  end
end

local function expect_counted(stage, kind, count)
  count = kind[2] and count or 0
  local total, seen = 0, {}
  h.wait_until(kind[1] .. ": all are counted", function()
    local found, more, agents = refusals(stage.relay)
    lu.assertEquals(agents, 0, kind[1])
    for reason in pairs(found) do
      seen[reason] = true
    end
    total = total + more
    return total >= count
  end)
  lu.assertEquals(total, count, kind[1])
  local expected = type(kind[2]) == "table" and kind[2] or { kind[2] }
  for reason in pairs(seen) do
    local found = false
    for _, one in ipairs(expected) do
      found = found or one == reason
    end
    lu.assertTrue(found, ("%s: refused for '%s'"):format(kind[1], reason))
  end
end

-- Nobody was taken for somebody: no word of a session, and no visitor's. In a
-- handshake of TLS, which is random, anything may be found.
local function judge(kind, answer)
  lu.assertNil(answer:byte() ~= 22 and answer:find("OK ", 1, true) or nil,
    kind[1])
  if answer ~= "" and not kind.acts then
    local pattern = kind.answer or
      (answer:byte() == 21 and "^\21\3[\1\3]\0\2\2.$" or "^ERR code=%S+ ")
    lu.assertNotNil(answer:find(pattern),
      ("%s: answered %s"):format(kind[1], secured.hex(answer)))
  end
end

-- ---- the tests --------------------------------------------------------------

local function report(format, ...)
  if full then
    print("        " .. format:format(...))
  end
end

-- All kinds once: so many bytes more of memory.
local function run_round(stage, kinds, after, warm)
  local each, rss = COUNT // #kinds, stage.relay:usage().rss
  for _, kind in ipairs(kinds) do
    local window = kind.slow and WINDOW_SLOW or WINDOW
    local count = warm and math.max(2 * window, each) or each
    local began = sys.now()
    attack(stage, kind, count, function(answer)
      judge(kind, answer)
    end)
    after(kind, count)
    stage:check()
    if not warm then
      report("%-36s %6d %5.1f s", kind[1], count, sys.now() - began)
    end
  end
  local drift = stage.relay:usage().rss - rss
  report("%d of %d kinds, %d bytes more of memory", each * #kinds, #kinds,
    drift)
  return drift
end

-- What is kept (pools, tables, the allocator's own) is filled by the first
-- round, once as many of each were there at a time as ever are. Where the
-- machine has other work as well, that may be later; a leak grows in each.
local function run(stage, kinds, after)
  run_round(stage, kinds, after, true)
  local least = math.huge
  for _ = 1, ROUNDS do
    least = math.min(least, run_round(stage, kinds, after))
    if h.sanitized or least < LEAK then
      return
    end
  end
  lu.fail(("%d bytes more in each round"):format(least))
end

local function kinds_of(...)
  local all = {}
  for _, list in ipairs({ ... }) do
    table.move(list, 1, #list, #all + 1, all)
  end
  return all
end

-- Without penalties each is refused for what it is, and counted so.
local function expect_each_refused(stage, kinds)
  refusals(stage.relay)
  run(stage, kinds, function(kind, count)
    expect_counted(stage, kind, count)
  end)
  stage:claim()
  stage:close()
end

-- With them, somebody honest comes in from the same addresses all the time.
local function expect_honest_served(stage, kinds)
  refusals(stage.relay)
  local n = 0
  run(stage, kinds, function(kind)
    n = n + 1
    stage:enter(source(n))
    lu.assertEquals(select(3, refusals(stage.relay)), 1, kind[1])
  end)
  stage:claim()
  stage:close()
end

local to_keyed = kinds_of(hostile.words, hostile.keyed)
local to_open = kinds_of(hostile.words, hostile.open)

function T.test_each_is_refused_for_what_it_is()
  expect_each_refused(stages.keyed("--penalties", "off"), to_keyed)
end

function T.test_honest_ones_are_served_among_them()
  expect_honest_served(stages.keyed("--penalties", "on", "--penalty", "100ms"),
    to_keyed)
end

function T.test_each_is_refused_without_tokens()
  expect_each_refused(stages.open("--penalties", "off"), to_open)
end

function T.test_honest_ones_are_served_without_tokens()
  expect_honest_served(stages.open("--penalties", "on", "--penalty", "100ms"),
    to_open)
end

-- ---- what it costs ----------------------------------------------------------

-- One of a kind; its answer, and how that ended.
local function try(stage, kind, from)
  local socket = start(stage, kind, 1, from)
  local answer, how = socket:recv_all()
  socket:close()
  return answer, how
end

local refused <const> = { "", "reset" }

-- Each kind of fault makes its source wait, and in the end it has no answer;
-- nobody else waits, and what is not a fault costs nothing. An agent that
-- answers with another's id is no exception.
local function expect_penalties(stage, kinds)
  local hello, number = { "hello", "an unknown verb", "hello\n" }, 0
  for _, kind in ipairs(kinds) do
    if not kind.acts and not kind.slow then
      number = number + 1
      local from = "127.1.1." .. number
      for _ = 1, 24 do
        try(stage, kind, from)
      end
      local answer, how = try(stage, hello, from)
      if kind.free then
        lu.assertStrContains(answer, "ERR code=protocol", false, kind[1])
      else
        lu.assertEquals({ answer, how }, refused, kind[1])
      end
    end
  end
  lu.assertStrContains(try(stage, hello, "127.1.2.1"), "ERR code=protocol")
  stage:enter("127.1.1.1")
  if stage.tokens then -- a key that is proven clears its source
    lu.assertStrContains(try(stage, hello, "127.1.1.1"), "ERR code=protocol")
  end
  stage:claim()
  stage:close()
end

function T.test_each_fault_is_penalised()
  expect_penalties(stages.keyed("--penalties", "on", "--penalty", "10ms"),
    to_keyed)
end

function T.test_each_fault_is_penalised_without_tokens()
  expect_penalties(stages.open("--penalties", "on", "--penalty", "10ms"),
    to_open)
end

-- Keys are guessed: late answers, all alike, and then none, however long it
-- goes on; whoever has a key behind the same address waits for nothing.
function T.test_guessing()
  local stage = stages.keyed("--penalties", "on", "--penalty", "20ms")
  local from, guesses, answered = "127.1.3.1", {}, 0
  for _, kind in ipairs(hostile.keyed) do
    for _, name in ipairs({ "a wrong key", "an unknown token",
                            "a revoked token", "an expired token" }) do
      if kind[1] == name then
        table.insert(guesses, kind)
      end
    end
  end
  for i = 1, 40 do
    local answer, how = try(stage, guesses[1 + i % #guesses], from)
    if answer ~= "" then
      lu.assertEquals(answer, hostile.ALERT)
      lu.assertEquals(answered, i - 1) -- not any more, once it had none
      answered = i
    else
      lu.assertEquals(how, "reset")
    end
  end
  lu.assertTrue(answered > 4 and answered < 40, answered)
  local began = sys.now()
  for i = 1, COUNT // 10 do
    local guess = guesses[1 + i % #guesses]
    lu.assertEquals({ try(stage, guess, from) }, refused)
    if i % (COUNT // 40) == 0 then
      stage:beat()
    end
  end
  report("%d guesses, the first %d answered, %.1f s", COUNT // 10 + 40,
    answered, sys.now() - began)
  stage:enter(from)
  stage:claim()
  stage:close()
end

return T
