-- SPDX-License-Identifier: MIT
--
-- What scripts may rely on in the three programs: each line on standard
-- output, when it comes, what is said when something is wrong, and the exit
-- status: 0, 1 or 2.

local lu = require("luaunit")
local cjson = require("cjson")
local h = require("harness")
local real = require("real")
local scene = require("scene")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

-- Runs a program to its end.
local function run(name, ...)
  return h.run({ h.program(name), ... })
end

local function assert_ends(result, status, stderr, stdout)
  lu.assertEquals({ result.status, result.stderr, result.stdout },
    { status, stderr, stdout or "" })
end

-- ---- standard streams ------------------------------------------------------

-- Those that are closed are nobody's: no socket takes their place, to be sent
-- the log's lines.
function T.test_closed_standard_streams()
  local function start(...)
    return h.start({ "sh", "-c", 'exec "$@" <&- 2>&-', "sh", ... })
  end
  local relay = start(h.program("relay"), 0, "--log-level", "debug")
  local _, port = relay:wait_line("^listening on (.*):(%d+)$")
  local agent = start(h.program("echoserver"), "localhost", port,
    "--log-level", "debug")
  _, port = agent:wait_line("^established relay address: %((.*), (%d+)%)$")
  h.echo(tonumber(port), 100000)
  for _, process in ipairs({ agent, relay }) do
    process:kill("TERM")
    lu.assertEquals({ process:wait() }, { "exit", 0 })
  end
end

-- ---- questions and wrong usage ----------------------------------------------

function T.test_help()
  local operands = { relay = "PORT", echoserver = "RELAYHOST RELAYPORT",
    expose = "RELAYHOST RELAYPORT TARGET" }
  for name, words in pairs(operands) do
    for _, arguments in ipairs({ { "--help" }, { "-h" }, { "--nope", "--help" },
        { "1", "2", "3", "4", "--help" } }) do
      local result = run(name, table.unpack(arguments))
      lu.assertEquals({ result.status, result.stderr }, { 0, "" })
      lu.assertStrContains(result.stdout,
        ("Usage: %s %s [OPTION]...\n"):format(name, words))
      for _, option in ipairs({ "--log FORMAT", "--mode MODE", "--help",
          "--version", "--drain TIME" }) do
        lu.assertStrContains(result.stdout, "\n  " .. option)
      end
    end
  end
end

function T.test_help_says_what_counts()
  local function says(program, text)
    lu.assertStrContains(run(program, "--help").stdout, text)
  end
  says("relay", "\n'relay token' makes, lists and revokes tokens")
  says("relay", "most that the script may hold (default: 64M)\n")
  says("relay", "an address is kept for a lost agent (default: 1m)\n")
  says("expose", "tells this address from others of one owner " ..
    "(default: TARGET)\n")
  says("echoserver", "tells this address from others of one owner " ..
    "(default: echo)\n")
end

function T.test_version()
  for _, name in ipairs({ "relay", "echoserver", "expose" }) do
    local result = run(name, "--version")
    lu.assertEquals({ result.status, result.stderr }, { 0, "" })
    lu.assertStrMatches(result.stdout, name .. " %d+%.%d+%.%d+\n")
  end
  lu.assertStrMatches(run("relay", "token", "--version").stdout,
    "relay token %d+%.%d+%.%d+\n")
end

-- What is typed, and what is wrong with it.
local wrong = {
  { "relay", "PORT is missing" },
  { "relay http", "PORT: 'http' is not a port (0-65535)" },
  { "relay 65536", "PORT: '65536' is not a port (0-65535)" },
  { "relay -1", "unknown option '-1'" },
  { "relay -- -1", "PORT: '-1' is not a port (0-65535)" },
  { "relay 1 2", "unexpected argument '2'" },
  { "relay 0 --nope", "unknown option '--nope'" },
  { "relay 0 -n", "unknown option '-n'" },
  { "relay 0 --tokns=a",
    "unknown option '--tokns=a' (did you mean '--tokens'?)" },
  { "relay 0 -log json", "unknown option '-log' (did you mean '--log'?)" },
  { "expose a 1 2 --tokenfile b",
    "unknown option '--tokenfile' (did you mean '--token-file'?)" },
  { "relay 0 --log", "--log needs a value" },
  { "relay 0 --log xml", "--log: 'xml' is not one of text|json|none" },
  { "relay 0 --log=xml", "--log: 'xml' is not one of text|json|none" },
  { "relay 0 --mode magic", "--mode: 'magic' is not one of auto|splice|copy" },
  { "relay 0 --ports 80", "--ports: '80' is not a range of ports (LO-HI)" },
  { "relay 0 --ports 2000-1000",
    "--ports: '2000-1000' is not a range of ports (LO-HI)" },
  { "relay 0 --ports 0-9", "--ports: '0-9' is not a range of ports (LO-HI)" },
  { "relay 0 --listen example.org",
    "--listen: 'example.org' is not an address" },
  { "relay 0 --listen=", "--listen: it is empty" },
  { "relay 0 --listen [zz", "--listen: '[zz' is not an address" },
  { "relay 0 --listen [::1]:80", "--listen: '[::1]:80' is not an address" },
  { "relay 0 --listen fe80::1%none",
    "--listen: 'fe80::1%none' is not an address" },
  { "relay 0 --dial here", "--dial: 'here' is not HOST:PORT" },
  { "relay 0 --dial ::1:80", "--dial: '::1:80' is not HOST:PORT" },
  { "relay 0 --dial here:0", "--dial: 'here:0' is not HOST:PORT" },
  { "relay 0 --advertise caf\u{e9}", "--advertise: 'caf\u{e9}' is not a host" },
  { "relay 0 --handshake soon",
    "--handshake: 'soon' is not a time (200ms, 5s, 2m, 1h)" },
  { "relay 0 --handshake 0", "--handshake: it cannot be 0" },
  { "relay 0 --heartbeat 0", "--heartbeat: it cannot be 0" },
  { "relay 0 --heartbeat 14s", "--heartbeat: it must be less than --dead" },
  { "relay --check", "--check needs --script" },
  { "relay 0 --check", "--check needs --script" },
  { "relay 0 --keepalive 0", "--keepalive: '0' is not a number (1-32767)" },
  { "relay 0 --rcvbuf 9x", "--rcvbuf: '9x' is not a size (65536, 64K, 1M)" },
  { "relay 0 --max-agents 0",
    "--max-agents: '0' is not a number (1-1000000)" },
  { "echoserver", "RELAYHOST is missing" },
  { "echoserver localhost", "RELAYPORT is missing" },
  { "echoserver localhost 0", "RELAYPORT: '0' is not a port (1-65535)" },
  { "echoserver localhost 1 2", "unexpected argument '2'" },
  { "echoserver localhost 1 --port 0", "--port: '0' is not a port (1-65535)" },
  { "echoserver localhost 1 --once=1", "--once takes no value" },
  { "expose localhost:80 1 2", "RELAYHOST: 'localhost:80' is not a host" },
  { "expose http://localhost 1 2",
    "RELAYHOST: 'http://localhost' is not a host" },
  { "expose [::1 1 2", "RELAYHOST: '[::1' is not a host" },
  { "echoserver a 1 --name " .. ("n"):rep(65), ("the name '%s' is longer " ..
    "than 64 bytes: give another by --name"):format(("n"):rep(65)) },
  { "expose a 1 unix:/" .. ("n"):rep(59), ("the name 'unix:/%s' is longer " ..
    "than 64 bytes: give another by --name"):format(("n"):rep(59)) },
  { "expose localhost 1", "TARGET is missing" },
  { "expose localhost 1 here", "TARGET: 'here' is not [HOST:]PORT or " ..
    "unix:PATH" },
  { "expose localhost 1 ::1:80", "TARGET: '::1:80' is not [HOST:]PORT or " ..
    "unix:PATH" },
  { "expose localhost 1 unix:", "TARGET: 'unix:' is not [HOST:]PORT or " ..
    "unix:PATH" },
  { "expose localhost 1 80 --proxy-protocol 3",
    "--proxy-protocol: '3' is not a number (1-2)" },
}

function T.test_wrong_usage()
  for _, case in ipairs(wrong) do
    local words = {}
    for word in case[1]:gmatch("%S+") do
      table.insert(words, word)
    end
    assert_ends(run(table.unpack(words)), 2, ("%s: %s\nTry '%s --help'.\n")
      :format(words[1], case[2], words[1]))
  end
end

-- ---- what cannot be done ----------------------------------------------------

function T.test_a_port_in_use()
  local listener = sys.listen({ host = "::" })
  assert_ends(run("relay", listener:port()), 1,
    ("relay: cannot listen on [::]:%d: address already in use\n"):format(
    listener:port()))
  listener:close()
  listener = sys.listen({ host = "127.0.0.1" })
  assert_ends(run("relay", listener:port(), "--listen", "127.0.0.1"), 1,
    ("relay: cannot listen on 127.0.0.1:%d: address already in use\n"):format(
    listener:port()))
end

function T.test_an_address_of_somebody_else()
  assert_ends(run("relay", "0", "--listen", "192.0.2.77"), 1,
    "relay: cannot listen on 192.0.2.77:0: address not available\n")
end

function T.test_a_privileged_port()
  local limit = h.read_file("/proc/sys/net/ipv4/ip_unprivileged_port_start")
  if tonumber(limit) <= 80 then
    h.skip("every port is open to everyone here")
  end
  assert_ends(h.run({ h.program("relay"), "80", "--listen", "0.0.0.0",
    user = sys.uid() == 0 and "nobody" or nil }), 1,
    "relay: cannot listen on 0.0.0.0:80: permission denied\n")
end

function T.test_a_relay_that_is_not_there()
  local port = real.free_port()
  for _, name in ipairs({ "echoserver", "expose" }) do
    local target = name == "expose" and "80" or nil
    assert_ends(run(name, "127.0.0.1", port, "--once", target), 1,
      ("%s: 127.0.0.1:%d: relay not reachable: connection refused\n"):format(
      name, port))
    assert_ends(run(name, "::1", port, "--once", target), 1,
      ("%s: [::1]:%d: relay not reachable: connection refused\n"):format(
      name, port))
  end
end

function T.test_a_name_that_is_none()
  local result = run("echoserver", "no.such.host.invalid", "8080", "--once")
  lu.assertEquals({ result.status, result.stdout }, { 1, "" })
  lu.assertStrMatches(result.stderr, "echoserver: no.such.host.invalid:" ..
    "8080: relay not reachable: [%l ]+\n")
  -- Names may come to be: without --once it goes on asking, and says so once.
  local agent = h.start({ h.program("echoserver"), "no.such.host.invalid",
    "8080", "--backoff-max", "10ms", "--backoff-min", "10ms", expect = 0,
    "--log-level", "debug" })
  agent:wait_log("debug relay not reachable [^\n]*\n.*debug relay not reach")
  local _, times = agent:log():gsub("warn relay not reachable", "")
  lu.assertEquals(times, 1)
end

-- ---- a relay's line ---------------------------------------------------------

function T.test_listening_on()
  local relay = h.start_relay()
  lu.assertEquals(relay.host, "[::]")
  h.connect(relay):close()
  h.connect(relay, { host = "::1" }):close()
  relay:stop()
  lu.assertEquals(relay:text(), ("listening on [::]:%d\n"):format(relay.port))
  relay = h.start_relay({ "--listen", "127.0.0.1" })
  lu.assertEquals(relay.host, "127.0.0.1")
  h.connect(relay):close()
  lu.assertEquals({ sys.connect("::1", relay.port) }, { nil, "ECONNREFUSED" })
  relay = h.start_relay({ "--listen", "::1" })
  lu.assertEquals(relay.host, "[::1]")
  h.connect(relay, { host = "::1" }):close()
  lu.assertEquals({ sys.connect("127.0.0.1", relay.port) },
    { nil, "ECONNREFUSED" })
end

-- PORT is the port, and what it leases is on the same address.
function T.test_the_port_and_address_it_is_told()
  local port = real.free_port()
  local relay = h.start_relay({ port = port, "--listen", "127.0.0.1" })
  lu.assertEquals(relay.port, port)
  local agent = h.start_echoserver(relay)
  h.echo(agent, 1000)
  lu.assertEquals({ sys.connect("127.0.0.2", agent.port) },
    { nil, "ECONNREFUSED" })
end

-- An IPv4 peer is one, also on a listener for both.
function T.test_addresses_are_shown_as_they_are()
  local relay = h.start_relay()
  local agent = typed.agent(relay)
  local visitor, message = agent:visitor({ from = "127.0.0.5" })
  local _, port = visitor:address()
  lu.assertEquals(message.from, "127.0.0.5:" .. port)
  lu.assertEquals(message.to, "127.0.0.1:" .. agent.port)
  visitor, message = agent:visitor({ host = "::1" })
  _, port = visitor:address()
  lu.assertEquals(message.from, "[::1]:" .. port)
  lu.assertEquals(message.to, "[::1]:" .. agent.port)
  relay:wait_log("address established agent=1 from=127%.0%.0%.1:")
end

function T.test_a_word_on_being_open()
  local relay = h.start_relay({ "--log-level", "warn" })
  relay:wait_log("^[%d-]+T[%d:.]+Z warn open to anyone reason=\"no tokens " ..
    "are configured\"\n$")
end

-- ---- an agent's line --------------------------------------------------------

function T.test_established()
  local relay = h.start_relay()
  for dialed, shown in pairs({ localhost = "localhost", ["::1"] = "::1",
      ["[::1]"] = "::1", ["127.0.0.1"] = "127.0.0.1" }) do
    local agent = h.start_echoserver(relay, { relay_host = dialed })
    lu.assertEquals(agent.host, shown)
    h.echo(agent, 1000)
    agent:stop()
    lu.assertEquals(agent:text(), ("established relay address: (%s, %d)\n")
      :format(shown, agent.port))
  end
  relay:stop()
  relay = h.start_relay({ "--advertise", "relay.example.org" })
  lu.assertEquals(h.start_echoserver(relay).host, "relay.example.org")
  lu.assertEquals(h.start_expose(relay, 80).host, "relay.example.org")
end

-- Of one that is longer a relay would keep nothing: see test_wrong_usage.
function T.test_the_longest_name()
  local relay, name = h.start_relay(), ("n"):rep(64)
  h.start_echoserver(relay, { "--name", name })
  relay:wait_log("address established [^\n]* name=" .. name .. " ")
end

-- A relay that comes back on the same port, as another process: the agent finds
-- it, gets its port again, and says so again.
function T.test_established_again_after_a_restart()
  local relay = h.start_relay()
  local agent = h.start_echoserver(relay, { "--backoff-max", "200ms" })
  local port = agent.port
  relay:kill("KILL")
  lu.assertEquals({ relay:wait() }, { "signal", 9 })
  agent:wait_log("warn relay lost [^\n]*retry_in_ms=%d+")
  h.start_relay({ port = relay.port })
  agent:wait_address()
  lu.assertEquals(agent.port, port)
  h.echo(agent, 10000)
  local line = ("established relay address: (localhost, %d)\n"):format(port)
  lu.assertEquals(agent:text(), line .. line)
end

-- The same, seen from the relay's side: what the agent asks for, and that each
-- answer is shown, whatever it is.
function T.test_established_is_what_each_answer_says()
  local listener = sys.listen()
  local agent = h.start_echoserver(listener:port(), { wait = false,
    relay_host = "127.0.0.1", "--backoff-max", "50ms", "--name", "one two" })
  local relay = typed.meet(listener)
  lu.assertEquals({ relay.listen.name, relay.listen.host, relay.listen.pool,
    relay.listen.port, relay.listen.resume }, { "one two", "127.0.0.1", "4" })
  relay:welcome("a.example", 1111)
  agent:wait_address()
  lu.assertEquals({ agent.host, agent.port }, { "a.example", 1111 })
  for _, port in ipairs({ 1111, 1111, 2222 }) do
    relay.socket:reset()
    relay = typed.meet(listener)
    lu.assertEquals({ relay.listen.port, relay.listen.resume },
      { tostring(agent.port), "71cc" })
    relay:welcome("a.example", port)
    agent:wait_address()
    lu.assertEquals(agent.port, port)
  end
end

function T.test_a_port_that_is_asked_for()
  local listener = sys.listen()
  local agent = h.start_echoserver(listener:port(), { wait = false,
    relay_host = "127.0.0.1", "--port", 4321, expect = 1 })
  local relay = typed.meet(listener)
  lu.assertEquals(relay.listen.port, "4321")
  relay:say("ERR code=port-refused final=yes reason=not%%20that%%20one")
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  lu.assertEquals(agent:log(), ("echoserver: 127.0.0.1:%d: relay refused: " ..
    "not that one\n"):format(listener:port()))
end

-- ---- an agent's end ---------------------------------------------------------

function T.test_once()
  local relay = h.start_relay()
  local agent = h.start_echoserver(relay, { "--once", expect = 1 })
  h.echo(agent, 1000)
  relay:kill("KILL")
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  lu.assertStrContains(agent:log(), ("\nechoserver: localhost:%d: relay " ..
    "lost: connection reset by peer\n"):format(relay.port))
  relay = h.start_relay()
  agent = h.start_echoserver(relay, { "--once", expect = 1 })
  relay:stop()
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  lu.assertStrContains(agent:log(), ("\nechoserver: localhost:%d: relay " ..
    "lost: the relay is shutting down\n"):format(relay.port))
end

-- What a relay says in place of an address, and what becomes of the agent.
function T.test_answers_that_end_it_and_those_that_do_not()
  local listener = sys.listen()
  local agent = h.start_echoserver(listener:port(), { wait = false, expect = 1,
    relay_host = "127.0.0.1", "--backoff-max", "20ms", "--backoff-min", "5ms",
    "--log-level", "debug" })
  for _, line in ipairs({ "ERR code=busy final=no retry=0 reason=later",
      "ERR code=unheard-of final=no retry=0", "BYE retry=0", "nonsense",
      "OK host=a", "OK host=a port=0 session=a resume=a heartbeat=5",
      "VISITOR id=1 from=127.0.0.1:1 to=127.0.0.1:2", "" }) do
    local relay = typed.meet(listener)
    relay:say("%s", line)
    lu.assertEquals(select(2, relay:hear()) ~= "timeout", true, line)
  end
  typed.meet(listener):say("ERR code=version final=yes reason=too%%20old")
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  lu.assertEquals(agent:log():match("\n(echoserver: [^\n]*\n)"),
    ("echoserver: 127.0.0.1:%d: relay refused: too old\n"):format(
    listener:port()))
  lu.assertEquals(agent:text(), "")
end

function T.test_a_relay_that_is_none()
  local listener = sys.listen()
  local agent = h.start_echoserver(listener:port(), { wait = false, "--once",
    relay_host = "127.0.0.1", expect = 1 })
  local socket = listener:accept()
  socket:recv_line()
  socket:send("HTTP/1.1 400 Bad Request\r\n\r\n")
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  lu.assertStrMatches(agent:log(), "echoserver: 127.0.0.1:%d+: relay gave " ..
    "no address: not a line of the relay protocol\n")
end

function T.test_replaced_by_another()
  local listener = sys.listen()
  local agent = h.start_echoserver(listener:port(), { wait = false,
    relay_host = "127.0.0.1", expect = 1 })
  local relay = typed.meet(listener)
  relay:welcome("localhost", 1234)
  agent:wait_address()
  relay:say("BYE retry=never reason=replaced%%20by%%20a%%20newer%%20connection")
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  lu.assertStrContains(agent:log(), ("\nechoserver: 127.0.0.1:%d: relay " ..
    "refused: replaced by a newer connection\n"):format(listener:port()))
end

-- Control is there, and data is not: who looks at the agent's log is told.
function T.test_where_data_connections_go()
  local listener = sys.listen()
  local port = listener:port()
  listener:close()
  local relay = h.start_relay({ "--dial", "localhost:" .. port })
  local agent = h.start_echoserver(relay)
  typed.turned_away(agent.port)
  agent:wait_log(("warn data connection not made to=[^ ]+:%d " ..
    'reason="connection refused"\n'):format(port))
  local _, times = agent:log():gsub("warn ", "")
  lu.assertEquals(times, 1)
  relay = h.start_relay({ "--dial", "no.such.host.invalid:80" })
  agent = h.start_echoserver(relay, { wait = false, expect = 1, "--once" })
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  lu.assertStrContains(agent:log(), "relay lost: data connections go to " ..
    "no.such.host.invalid: ")
end

-- ---- where expose leads -----------------------------------------------------

local function serve(listener, agent)
  local visitor, served = h.join(agent, listener)
  h.exchange(visitor, served, 10000)
  visitor:close()
  served:close()
  agent:stop()
end

function T.test_targets()
  local relay = h.start_relay()
  local four = sys.listen({ host = "127.0.0.1" })
  local six = sys.listen({ host = "::1" })
  local path = h.tmpdir() .. "/service"
  local unix = sys.listen({ unix = path })
  serve(four, h.start_expose(relay, four:port()))
  serve(four, h.start_expose(relay, "127.0.0.1:" .. four:port()))
  serve(four, h.start_expose(relay, "localhost:" .. four:port()))
  serve(six, h.start_expose(relay, ("[::1]:%d"):format(six:port())))
  serve(six, h.start_expose(relay, six:port()))
  serve(unix, h.start_expose(relay, "unix:" .. path))
end

-- Which service it is, and why: the first of many who find it shut, and that it
-- is there again.
function T.test_a_service_that_is_not_there()
  local relay = h.start_relay()
  local listener = sys.listen({ host = "127.0.0.1" })
  local port = listener:port()
  listener:close()
  local agent = h.start_expose(relay, port)
  local function words(service, reason)
    return ("warn service not reached service=%s reason=%s\n"):format(service,
      reason)
  end
  for _ = 1, 3 do
    typed.turned_away(agent.port)
  end
  agent:wait_log(words("127%.0%.0%.1:" .. port, '"connection refused"'))
  local _, times = agent:log():gsub("not reached", "")
  lu.assertEquals(times, 1)
  listener = sys.listen({ host = "127.0.0.1", port = port })
  serve(listener, agent)
  lu.assertStrContains(agent:log(), "info service is reached again\n")
  for target, service in pairs({ ["no.such.host.invalid:80"] =
      "no%.such%.host%.invalid", ["unix:/no/service"] = "unix:/no/service",
      ["unix:@no-service"] = "unix:@no%-service" }) do
    agent = h.start_expose(relay, target)
    typed.turned_away(agent.port)
    agent:wait_log(words(service, '"[%l ]+"'))
    agent:stop()
  end
end

-- ---- logs -------------------------------------------------------------------

local function session_with(log)
  local options = { "--log=" .. log, "--log-level", "debug" }
  local relay = h.start_relay(options)
  local listener = sys.listen()
  local agent = h.start_expose(relay, listener, options)
  local visitor, served = h.join(agent, listener)
  h.exchange(visitor, served, 10000)
  scene.wait_sockets(relay, 7)
  relay:kill("TERM")
  agent:wait_log(log == "none" and "^" or "relay lost")
  lu.assertEquals({ relay:wait() }, { "exit", 0 })
  agent:stop()
  return relay:log(), agent:log()
end

function T.test_json_is_json()
  for _, log in ipairs({ session_with("json") }) do
    local events = {}
    for line in log:gmatch("([^\n]*)\n") do
      local record = cjson.decode(line)
      lu.assertStrMatches(record.time,
        "%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ")
      events[record.event] = record
    end
    local closed = events["visitor closed"]
    lu.assertEquals({ closed.level, closed.bytes_in, closed.bytes_out,
      closed.reason }, { "info", 10000, 10000, "ended" })
    lu.assertEquals(type(events["address established"].port), "number")
  end
end

function T.test_no_log_is_none()
  lu.assertEquals({ session_with("none") }, { "", "" })
end

function T.test_levels()
  local relay = h.start_relay({ "--log-level", "error" })
  local agent = h.start_echoserver(relay, { "--log-level", "warn" })
  h.echo(agent, 1000)
  agent:stop()
  relay:stop()
  lu.assertEquals({ relay:log(), agent:log() }, { "", "" })
end

return T
