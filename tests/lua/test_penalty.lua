-- SPDX-License-Identifier: MIT
--
-- What the relay bears from those who have proven nothing: faults that are
-- answered late and then not at all, caps for each source, and that nobody
-- else has to pay, in time or room in the log. (In memory: test_hostile.lua.)

local lu = require("luaunit")
local h = require("harness")
local typed = require("typed")
local sys = h.sys

local T = { limit = 120, tearDown = typed.close_all }

-- Penalties without tokens: so that whoever says LISTEN is let in.
local function open_relay(...)
  return h.start_relay({ "--penalties", "on", ... })
end

-- Says something; the answer, how it ended, and how long that took.
local function say(relay, bytes, from)
  local socket = h.connect(relay, { from = from })
  local began = sys.now()
  socket:send(bytes)
  local answer, how = socket:recv_all()
  socket:close()
  return answer, how, sys.now() - began
end

-- Where an answer waits for as good as ever, one that comes did not wait.
local FOR_EVER <const> = { "--penalty", "10h", "--handshake", "10h",
                           "--penalty-half-life", 0 }

local function open_relay_for_ever(...)
  local options = { "--penalties", "on", ... }
  table.move(FOR_EVER, 1, #FOR_EVER, #options + 1, options)
  return h.start_relay(options)
end

local function is_answered(relay, from)
  lu.assertStrContains(say(relay, "hello\n", from),
    "ERR code=protocol final=yes")
end

local function agent_is_answered(relay, from)
  typed.agent(relay, { from = from }):bye()
end

local function is_closed(socket)
  return #sys.poll({ socket }, "r", 0) == 1
end

local function count_closed(sockets)
  return #sys.poll(sockets, "r", 0)
end

-- ---- late, then never -------------------------------------------------------

function T.test_faults_are_answered_late_and_then_not_at_all()
  local relay = open_relay("--penalty", "320ms", "--penalty-half-life", 0)
  local delays = { 0, 0, 0, 0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.32 }
  for i, delay in ipairs(delays) do
    local answer, _, took = say(relay, "hello\n", "127.0.0.3")
    lu.assertStrContains(answer, "ERR code=protocol final=yes", false, i)
    lu.assertTrue(took >= delay * 0.9, ("%d: %g"):format(i, took))
  end
  h.wait_until("there is no answer", function()
    local answer, how = say(relay, "hello\n", "127.0.0.3")
    return answer == "" and how == "reset"
  end)
  relay:wait_log("connection refused from=127.0.0.3:%d+ reason=" ..
    '"too many faults: it gets no answer for a while"')
  -- Nobody else is concerned, not even an agent behind the same address.
  agent_is_answered(relay, "127.0.0.3")
  is_answered(relay, "127.0.0.4")
  local answer = say(relay, "GET / HTTP/1.0\r\n\r\n", "127.0.0.3")
  lu.assertEquals(answer, "")
end

-- The first few are free; and while one waits, its source's agents do not, and
-- nobody else does.
function T.test_only_the_answer_to_a_fault_waits()
  local relay = open_relay_for_ever()
  for _ = 1, 4 do
    is_answered(relay, "127.0.0.3")
  end
  local waiting = h.connect(relay, { from = "127.0.0.3" })
  waiting:send("hello\n")
  for _ = 1, 4 do
    agent_is_answered(relay, "127.0.0.3")
    agent_is_answered(relay, "127.0.0.4")
    is_answered(relay, "127.0.0.4")
  end
  lu.assertFalse(is_closed(waiting))
  waiting:close()
end

function T.test_half_is_forgotten()
  local relay = open_relay("--penalty", 0, "--penalty-half-life", "1s")
  h.wait_until("there is no answer", function()
    local many = {}
    for i = 1, 20 do -- at once, or some are forgotten before the next
      many[i] = h.connect(relay)
      many[i]:send("hello\n")
    end
    for _, socket in ipairs(many) do
      socket:recv_all()
      socket:close()
    end
    return say(relay, "hello\n") == ""
  end)
  h.wait_until("there is one again", function()
    sys.sleep(0.5)
    return say(relay, "hello\n") ~= ""
  end)
end

-- The time for the whole of a handshake is not made longer by a penalty.
function T.test_no_answer_is_later_than_the_handshake()
  local relay = open_relay("--penalty", "10h", "--handshake", "500ms")
  for _ = 1, 8 do
    is_answered(relay)
  end
end

function T.test_off_is_off()
  local relay = h.start_relay({ "--penalties", "off",
    table.unpack(FOR_EVER) })
  for _ = 1, 100 do
    is_answered(relay)
  end
  local _, lines = relay:log():gsub("connection refused", "")
  lu.assertEquals(lines, 100)
end

-- Without tokens nobody can prove anything, so it is off; with them it is on,
-- and to have none is a fault.
function T.test_it_goes_with_tokens()
  local file = h.write_file(h.tmpdir() .. "/tokens", "")
  h.output_of({ "chmod", "600", file })
  local relay = h.start_relay({ "--tokens", file, "--penalty", "640ms" })
  local began, answers = sys.now(), {}
  for _ = 1, 9 do
    local answer = say(relay, "RELAY/1 LISTEN\n")
    answers[answer] = true
  end
  lu.assertTrue(sys.now() - began >= 0.3)
  lu.assertEquals(answers, { ["ERR code=denied final=yes " ..
    "reason=denied%20by%20policy\n"] = true })
  relay:wait_log('connection refused from=[^\n]* reason="no token"')
  relay = h.start_relay(FOR_EVER)
  for _ = 1, 30 do
    is_answered(relay)
  end
end

-- ---- too many from one source -----------------------------------------------

function T.test_silent_ones_give_way()
  local relay = open_relay_for_ever("--max-unproven-per-source", 8)
  local other = h.connect(relay, { from = "127.0.0.4" })
  local silent = {}
  for i = 1, 20 do
    silent[i] = h.connect(relay, { from = "127.0.0.3" })
  end
  h.wait_until("twelve gave way", function()
    return count_closed(silent) == 12
  end)
  for i = 1, 12 do
    lu.assertEquals({ silent[i]:recv() }, { nil, "reset" })
  end
  lu.assertFalse(is_closed(other))
  is_answered(relay, "127.0.0.3") -- it was nobody's fault
  agent_is_answered(relay, "127.0.0.3")
  agent_is_answered(relay, "127.0.0.4")
end

-- Those that are saying something keep their place for half of their time.
function T.test_those_that_speak_give_way_late()
  local relay = open_relay("--max-unproven-per-source", 4, "--handshake", "8s")
  local slow, began = {}, sys.now()
  for i = 1, 4 do
    slow[i] = h.connect(relay, { from = "127.0.0.3" })
    slow[i]:send("RELAY/1 LIS")
  end
  agent_is_answered(relay, "127.0.0.4") -- so what they said was heard
  h.wait_until("they keep others out", function()
    local socket, why = sys.connect("127.0.0.1", relay.port,
      { from = "127.0.0.3" })
    local answer = ""
    if socket then
      answer, why = socket:recv_all()
      socket:close()
    end
    return answer == "" and why == "reset"
  end)
  relay:wait_log("connection refused from=127.0.0.3:%d+ " ..
    'reason="too many from its source at a time"')
  local agent
  h.wait_until("one gave way", function()
    local ok, one = pcall(typed.agent, relay, { from = "127.0.0.3" })
    agent = ok and one
    return ok
  end)
  local took = sys.now() - began
  lu.assertTrue(took >= 3.9, took)
  agent:bye()
end

-- Those whose answer waits are the first to go, here and where the relay has
-- as many as it may.
function T.test_faults_that_wait_give_way()
  for _, cap in ipairs({ "--max-unproven-per-source", "--max-unproven" }) do
    local relay = open_relay_for_ever(cap, 4)
    local waiting = {}
    for i = 1, 14 do
      waiting[i] = h.connect(relay, { from = "127.0.0.3" })
      waiting[i]:send("hello\n")
    end
    h.wait_until("all but four were heard or gave way", function()
      return count_closed(waiting) >= 10
    end)
    agent_is_answered(relay, "127.0.0.3")
    agent_is_answered(relay, "127.0.0.4")
    is_answered(relay, "127.0.0.4")
    relay:stop()
  end
end

-- ---- what is logged ---------------------------------------------------------

-- Each of these is refused for something else than a line that is none.
function T.test_no_refusal_fills_the_log()
  local relay = open_relay("--penalty", 0, "--max-agents", 1)
  local agent = typed.agent(relay)
  local spent = ("RELAY/1 ACCEPT session=%s id=%s\n"):format(agent.session,
    ("0"):rep(32))
  for bytes, code in pairs({ ["RELAY/1 LISTEN\n"] = "busy",
      ["RELAY/1 LISTEN port=x\n"] = "", [spent] = "" }) do
    for i = 1, 50 do
      local answer = say(relay, bytes, "127.0.2." .. i)
      lu.assertStrContains(answer, code)
    end
  end
  relay:wait_log("agent refused")
  relay:wait_log('info connections? refused [^\n]*reason="no such visitor"')
  local _, lines = relay:log():gsub("refused", "")
  lu.assertTrue(lines < 50, relay:log())
end

-- And a number that is none is a fault, as any such line.
function T.test_a_listen_that_is_none_is_a_fault()
  local relay = open_relay("--penalty", "10ms", "--max-agents", 1)
  local agent = typed.agent(relay)
  agent:bye()
  h.wait_until("there is no answer", function()
    return say(relay, "RELAY/1 LISTEN pool=many\n") == ""
  end)
end

function T.test_the_log_names_kinds_and_counts()
  local relay = open_relay("--penalty", 0)
  local sent = { ["GET / HTTP/1.0\r\n\r\n"] = "an HTTP request",
    ["\22\3\1\2\0\1\0"] = "a TLS handshake",
    [("a"):rep(1024)] = "an oversized line",
    ["hello\n"] = "an unknown verb" }
  for bytes in pairs(sent) do
    for i = 1, 50 do
      say(relay, bytes, "127.0.1." .. i)
    end
  end
  for _, name in pairs(sent) do
    h.wait_until(name .. " was told of", function()
      local count = 0
      for more in relay:log():gmatch(
        'connections refused count=(%d+) last_from=127.0.1.%d+:%d+ reason="' ..
        name .. '"') do
        count = count + math.tointeger(more)
      end
      local _, one = relay:log():gsub(
        'connection refused from=127.0.1.%d+:%d+ reason="' .. name .. '"', "")
      return count + one == 50
    end)
  end
  local _, lines = relay:log():gsub("refused", "")
  lu.assertTrue(lines < 50, relay:log())
end

return T
