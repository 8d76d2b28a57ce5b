-- SPDX-License-Identifier: MIT
--
-- Connections to the agent port before they have said what they are: slow
-- ones, foreign ones, and those that try to write into the log.

local lu = require("luaunit")
local cjson = require("cjson")
local h = require("harness")
local scene = require("scene")
local typed = require("typed")
local sys = h.sys

local T = { limit = 120, tearDown = typed.close_all }

-- Connects `count` times; gives a list of sockets.
local function connect_many(relay, count)
  local sockets = {}
  for i = 1, count do
    sockets[i] = h.connect(relay)
  end
  return sockets
end

local function cpu_while(process, work)
  local before = process:usage().cpu
  work()
  return process:usage().cpu - before
end

-- ---- slow ones --------------------------------------------------------------

-- A first line that comes a byte at a time is cut when its time is over: the
-- clock is of the whole line, and bytes do not set it back.
function T.test_a_byte_at_a_time_is_cut_in_all()
  local time = h.seconds(8)
  local relay = h.start_relay({ "--handshake", time .. "s" })
  local before, fds = relay:usage().rss, relay:fds()
  local began = sys.now()
  local slow = connect_many(relay, 1000)
  local line = "RELAY/1 LISTEN name=" .. ("a"):rep(900)
  local sent, alive = 0, slow
  local function round()
    sent = sent + 1
    local left = {}
    for _, socket in ipairs(alive) do
      if socket:try_send(line:sub(sent, sent)) == 1 then
        table.insert(left, socket)
      end
    end
    alive = left
  end
  while sent < 8 do
    round()
  end
  relay:wait_fds(fds + 1000)
  if not h.sanitized then
    local each = (relay:usage().rss - before) / 1000
    lu.assertTrue(each <= 4096, ("%g bytes for each"):format(each))
  end
  -- An agent that knows what it wants is not kept from it.
  typed.agent(relay):bye()
  -- Nothing to hear, part of a line read: nothing to do.
  local cpu = cpu_while(relay, function()
    sys.sleep(1)
  end)
  lu.assertTrue(cpu < 0.5, ("%g s of CPU in 1 s of silence"):format(cpu))
  -- A byte every 0.25 s, for ever: only the time for all of them can cut it.
  h.wait_until("all are cut", function()
    round()
    sys.sleep(0.25)
    return #sys.poll(slow, "r", 0) == 1000
  end, 60)
  lu.assertTrue(sys.now() - began >= time - 0.1, "cut early")
  lu.assertTrue(sent < #line, "the line came to its end")
  for _, socket in ipairs(slow) do
    local answer, how = socket:recv_all()
    lu.assertStrMatches(answer, "ERR code=handshake final=no .*\n")
    lu.assertTrue(how == "eof" or how == "reset", how)
    socket:close()
  end
  relay:wait_fds(fds)
  local _, count = relay:log():gsub("connection refused from=127.0.0.1:%d+ " ..
    'reason="[^\n]+"\n', "")
  lu.assertEquals(count, 1000)
end

function T.test_silence_is_cut_too()
  local relay = h.start_relay({ "--handshake", "200ms" })
  local socket = h.connect(relay)
  local answer = socket:recv_all()
  lu.assertStrContains(answer, "ERR code=handshake final=no retry=1 " ..
    "reason=handshake%20not%20completed%20in%20time")
  relay:wait_log('connection refused [^\n]*reason="it said nothing in time"')
end

-- What its agent reads on a data connection is the visitor's, and an end would
-- be its end: one that is late is reset, and reads nothing.
function T.test_a_late_data_connection_is_reset()
  local relay = h.start_relay({ "--handshake", "1s" })
  for _, begin in ipairs({ "RELAY/1 A", "RELAY/1 ACCEPT session=0",
                           "RELAY/1 WAIT" }) do
    local socket = h.connect(relay)
    socket:send(begin)
    lu.assertEquals({ socket:recv_all() }, { "", "reset" }, begin)
  end
  relay:wait_log('connection refused [^\n]*reason="an unfinished line"')
end

-- Where it is the relay that stood still, what came meanwhile is in time.
function T.test_a_relay_that_stood_still_looks_once_more()
  local relay = h.start_relay({ "--handshake", "3s" })
  local agent = typed.agent(relay)
  local visitor, message = agent:visitor()
  local sockets = scene.sockets(relay)
  local data, other = h.connect(relay), h.connect(relay)
  scene.wait_sockets(relay, sockets + 2)
  relay:kill("STOP")
  data:send(("RELAY/1 ACCEPT session=%s id=%s\nhello"):format(agent.session,
    message.id))
  other:send("RELAY/1 LISTEN\n")
  sys.sleep(3.5)
  relay:kill("CONT")
  lu.assertEquals(visitor:recv_exact(5), "hello")
  lu.assertStrContains(other:recv_line(), "OK ")
end

-- More than may be unproven at a time wait in the backlog, and have their turn.
function T.test_those_beyond_the_cap_wait()
  local relay = h.start_relay({ "--max-unproven", 4, "--handshake", "500ms" })
  local idle = connect_many(relay, 20)
  local agent = typed.agent(relay)
  -- Its turn came when there were three others at most.
  lu.assertTrue(#sys.poll(idle, "r", 0) >= 17)
  agent:bye()
  -- All that came before it were heard out and cut, and none was dropped.
  for _, socket in ipairs(idle) do
    lu.assertStrContains((socket:recv_all()), "code=handshake")
  end
end

-- ---- foreign ones -----------------------------------------------------------

local hello = "\22\3\1\2\0\1\0\1\252\3\3" .. ("\171"):rep(500)

-- What is sent, the code that is answered (nil: maybe none), what is logged.
local corpus = {
  http = { "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "protocol", "HTTP" },
  http_post = { "POST /x HTTP/1.0\r\n\r\n" .. ("x"):rep(30000), nil, "HTTP" },
  http2 = { "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "protocol", "HTTP" },
  tls = { hello, "protocol", "TLS" },
  ssh = { "SSH-2.0-OpenSSH_9.2p1\r\n", nil, "SSH" },
  rdp = { "\3\0\0\19\14\224\0\0\0\0\0\1\0\8\0\3\0\0\0", "protocol",
    "RDP" },
  smtp = { "EHLO example.org\r\n", "protocol", "unknown verb" },
  redis = { "*1\r\n$4\r\nPING\r\n", "protocol", "." },
  socks = { "\5\1\0", "protocol", "SOCKS" },
  zeros = { ("\0"):rep(2000), "protocol", "." },
  noise = { sys.pattern(7, 0, 5000) .. "\n", "protocol", "." },
  empty_line = { "\n", "protocol", "." },
  endless_line = { ("a"):rep(100000), "protocol", "oversized" },
  a_line_of_1025 = { "RELAY/1 LISTEN name=" .. ("a"):rep(1004) .. "\n",
    "protocol", "oversized" },
  many_words = { "RELAY/1 LISTEN" .. (" a=b"):rep(33) .. "\n", "protocol",
    "words" },
  version = { "RELAY/2 LISTEN\n", "version", "version" },
  lower_case = { "relay/1 listen\n", "protocol", "." },
  two_spaces = { "RELAY/1 LISTEN  port=1\n", "protocol", "." },
  no_value = { "RELAY/1 LISTEN port\n", "protocol", "." },
  bad_escape = { "RELAY/1 LISTEN name=%zz\n", "protocol", "." },
  nul = { "RELAY/1 LISTEN name=%00\n", "protocol", "." },
  utf8 = { "RELAY/1 LISTEN name=\195\169\n", "protocol", "." },
  bare_cr = { "RELAY/1\rLISTEN\n", "protocol", "." },
  out_of_place = { "PING n=1\n", "protocol", "." },
  answer = { "OK host=a port=1 session=1 resume=1 heartbeat=5\n", "protocol",
    "." },
  port_word = { "RELAY/1 LISTEN port=http\n", "protocol", "." },
  port_large = { "RELAY/1 LISTEN port=65536\n", "protocol", "." },
  port_sign = { "RELAY/1 LISTEN port=-1\n", "protocol", "." },
  pool_word = { "RELAY/1 LISTEN pool=many\n", "protocol", "." },
}

local function refused_lines(relay)
  local lines = {}
  for line in relay:log():gmatch("[^\n]+") do
    if line:find(" refused ", 1, true) then
      table.insert(lines, line)
    end
  end
  return lines
end

local function check_foreign(relay, name, case)
  local before = #refused_lines(relay)
  local socket = h.connect(relay)
  local _, port = socket:address()
  socket:send(case[1])
  local answer, how = socket:recv_all()
  socket:close()
  lu.assertTrue(how == "eof" or how == "reset", name .. ": " .. how)
  lu.assertTrue(#answer <= 4096, name)
  if case[2] then
    -- A reset may overtake the answer where more was sent than was read.
    if not (how == "reset" and answer == "") then
      lu.assertStrMatches(answer,
        ("ERR code=%s final=yes reason=.+\n"):format(case[2]), nil, nil, name)
    end
  end
  local lines = h.wait_until(name .. " is logged", function()
    local all = refused_lines(relay)
    return #all > before and all
  end)
  lu.assertEquals(#lines, before + 1, name)
  local from = ("127.0.0.1:%d"):format(port)
  lu.assertStrContains(lines[#lines], "from=" .. from, false, name)
  lu.assertStrMatches(lines[#lines],
    ".*reason=[^\n]*" .. case[3] .. ".*", nil, nil, name .. lines[#lines])
end

function T.test_what_is_no_agent_is_named_and_closed()
  local relay = h.start_relay()
  local fds, names = relay:fds(), {}
  for name in pairs(corpus) do
    table.insert(names, name)
  end
  table.sort(names)
  for _, name in ipairs(names) do
    check_foreign(relay, name, corpus[name])
  end
  relay:wait_fds(fds)
  typed.agent(relay):bye()
end

-- Bytes that go on and on after a refusal are not read for ever.
function T.test_a_flood_after_garbage_is_cut()
  local relay = h.start_relay()
  local fds, before = relay:fds(), relay:usage().rss
  local block = ("garbage\n"):rep(8192)
  local floods = connect_many(relay, 50)
  for _, socket in ipairs(floods) do
    local ok, why
    for _ = 1, 1000 do
      ok, why = socket:send(block, h.seconds(5))
      if not ok then
        break
      end
    end
    lu.assertEquals({ ok, why }, { nil, "reset" })
    socket:close()
  end
  relay:wait_fds(fds)
  if not h.sanitized then
    lu.assertTrue(relay:usage().rss - before < 1 << 20)
  end
end

-- A port check (connect, close) is no fault, and nothing to log.
function T.test_a_port_check_is_not_logged()
  local relay = h.start_relay()
  for _ = 1, 10 do
    h.connect(relay):close()
    h.connect(relay):reset()
  end
  local agent = typed.agent(relay)
  lu.assertNotStrContains(relay:log(), "connection refused")
  agent:bye()
end

-- All of the corpus at once, a byte or a few at a time: the end is the same.
function T.test_the_corpus_in_pieces_and_at_once()
  local relay = h.start_relay()
  local fds, open = relay:fds(), {}
  for name, case in pairs(corpus) do
    for size = 1, 7, 3 do
      table.insert(open, { name = name, bytes = case[1], at = 0, size = size,
        socket = h.connect(relay) })
      open[#open].socket:set({ nodelay = true })
    end
  end
  for _ = 1, 600 do
    for _, one in ipairs(open) do
      if one.at < #one.bytes and not one.over then
        local sent = one.socket:try_send(
          one.bytes:sub(one.at + 1, one.at + one.size))
        one.at = one.at + (sent or 0)
        one.over = sent == nil
      end
    end
  end
  for _, one in ipairs(open) do
    local answer, how = one.socket:recv_all()
    lu.assertTrue(how == "eof" or how == "reset", one.name .. ": " .. how)
    lu.assertTrue(#answer <= 4096, one.name)
    one.socket:close()
  end
  relay:wait_fds(fds)
  typed.agent(relay):bye()
end

-- ---- what is written into the log -------------------------------------------

local evil = 'x\r\n2026-01-01T00:00:00.000Z info forged line=1\27[31m"\\\t' ..
  "\8\127\226\128\174\194\133\255 a=b 'c' \u{1f600}"

-- Whatever a peer may have a say in, in one session: its name, the host it
-- dialed, reasons, ids; and first lines that are none.
local function provoke(relay)
  local text = typed.encode(evil)
  local agent = typed.agent(relay, { words = ("name=%s host=%s"):format(
    text:sub(1, 180), text) })
  local visitor, message = agent:visitor()
  agent:say("REJECT id=%s reason=%s", message.id, text)
  visitor:recv_all()
  agent:say("REJECT id=%s reason=%s", text, text)
  agent:say("BYE reason=%s", text)
  agent.socket:recv_all()
  agent:close()
  typed.agent(relay, { refused = true,
    words = "port=1 name=" .. text:sub(1, 180) })
  for _, bytes in ipairs({ evil .. "\n", evil:sub(4), "RELAY/1 LISTEN " ..
      evil .. "\n", "RELAY/1 ACCEPT session=" .. text .. " id=" .. text ..
      "\n", "RELAY/1 WAIT session=" .. text .. " n=1\n" }) do
    local socket = h.connect(relay)
    socket:send(bytes)
    socket:shutdown()
    socket:recv_all()
    socket:close()
  end
end

-- Every line of a log: one event each, and nothing that steers a terminal.
local function check_lines(log, check)
  local events = {}
  lu.assertEquals(log:sub(-1), "\n")
  for line in log:gmatch("([^\n]*)\n") do
    lu.assertNil(line:find("[%z\1-\31\127]"), line)
    lu.assertNil(line:find("\226\128\174", 1, true), line)
    lu.assertNil(line:find("\194\133", 1, true), line)
    lu.assertNotNil(utf8.len(line), line)
    local event = check(line)
    lu.assertNotNil(event, line)
    events[event] = (events[event] or 0) + 1
  end
  return events
end

local function check_text(line)
  return line:match("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ %l+ " ..
    "([%l ,]-) [%l_]+=")
end

local function check_json(line)
  local record = cjson.decode(line)
  lu.assertStrMatches(record.time,
    "%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ")
  lu.assertTrue(("debug info warn error"):find(record.level, 1, true) ~= nil)
  return record.event
end

local function provoked_events(format, check)
  local relay = h.start_relay({ "--log", format, "--log-level", "debug" })
  provoke(relay)
  relay:stop()
  local log = relay:log()
  return check_lines(log, check), log
end

function T.test_one_event_is_one_line_of_text()
  local events, log = provoked_events("text", check_text)
  lu.assertEquals(events["visitor rejected by its agent"], 1)
  lu.assertEquals(events["agent gone"], 1)
  lu.assertEquals(events["agent refused"], 1)
  lu.assertEquals(events["connection refused"], 5)
  lu.assertNil(events.forged)
  -- What was said is there, escaped.
  lu.assertStrContains(log, [[reason="x\r\n2026-01-01T00:00:00.000Z info ]] ..
    [[forged line=1\u001b[31m\"\\\t\u0008\u007f\u202e\u0085\xff a=b 'c' ]] ..
    "\u{1f600}\"")
end

function T.test_one_event_is_one_line_of_json()
  local _, log = provoked_events("json", check_json)
  local found = {}
  for line in log:gmatch("[^\n]+") do
    local record = cjson.decode(line)
    found[record.event] = record
  end
  lu.assertEquals(found["visitor rejected by its agent"].reason,
    (evil:gsub("\255", "\u{fffd}")))
  lu.assertEquals(found["agent gone"].reason,
    (evil:gsub("\255", "\u{fffd}")))
end

-- The same towards an agent: a relay is a stranger to it.
local function evil_relay(format)
  local text = typed.encode(evil)
  local listener = sys.listen()
  local agent = h.start_echoserver(listener:port(), { wait = false,
    expect = 1, "--log", format, "--log-level", "debug", "--backoff-max", 1,
    "--backoff-min", "10ms", relay_host = "127.0.0.1" })
  typed.meet(listener):say("ERR code=busy final=no retry=0 reason=%s", text)
  local relay = typed.meet(listener)
  relay:say("BYE retry=0 reason=%s", text)
  relay = typed.meet(listener)
  relay:welcome("localhost", 1234)
  agent:wait_address()
  relay:say("VISITOR id=1 from=%s to=%s", text, text)
  relay:say("GONE id=1 code=%s", text)
  relay:say("VISITOR id= from=%s to=a", text)
  relay:say("BYE retry=never reason=%s", text)
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  return agent
end

-- The log, and the line that is the program's own.
local function split_own(log)
  local own = log:match("echoserver: [^\n]*\n")
  local from, to = log:find(own, 1, true)
  return log:sub(1, from - 1) .. log:sub(to + 1), own
end

function T.test_an_agents_log_is_escaped_too()
  local agent = evil_relay("text")
  local log, own = split_own(agent:log())
  local events = check_lines(log, check_text)
  lu.assertEquals(events["visitor closed"], 1)
  lu.assertEquals(events["visitor without proper id"], 1)
  lu.assertStrMatches(own, "echoserver: 127.0.0.1:%d+: relay refused: x.*\n")
  lu.assertNil(own:find("[%z\1-\9\11-\31\127]"))
  lu.assertNil(own:find("\226\128\174", 1, true))
end

function T.test_an_agents_json_is_json()
  local agent = evil_relay("json")
  local log, own = split_own(agent:log())
  local events = check_lines(log, check_json)
  lu.assertEquals(events["visitor closed"], 1)
  lu.assertStrMatches(own, "echoserver: 127.0.0.1:%d+: relay refused: x.*\n")
  lu.assertEquals(agent:text(),
    "established relay address: (localhost, 1234)\n")
end

return T
