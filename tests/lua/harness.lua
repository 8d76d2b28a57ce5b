-- SPDX-License-Identifier: MIT
--
-- What Lua tests are made of: programs that are started, waited for, and ended
-- after each test; tools that are run; sockets joined through a relay. Each
-- test starts from nothing and must leave nothing: no child, no descriptor, no
-- sanitizer's report, no program that ended otherwise than it should.
--
-- Time-outs are seconds on a fast machine; under sanitizers they stretch.

local lu = require("luaunit")
local sys = require("sys")

local h = { sys = sys }

h.build = os.getenv("RELAY_TEST_BUILD") or "build"
h.slow = tonumber(os.getenv("RELAY_TEST_SLOW") or "1")
h.mode = os.getenv("RELAY_TEST_MODE")
h.workers = os.getenv("RELAY_TEST_WORKERS")
h.modes = h.mode and { h.mode } or
  { "auto", "splice", "copy", "tls" }
h.source = debug.getinfo(1, "S").source:match("^@(.*)tests/lua/") or "./"
if h.source == "" then
  h.source = "./"
end
h.sanitized = h.slow > 1
-- Lua collects all garbage at each allocation.
h.stressed = (os.getenv("RELAY_TEST_STRESSED") or "") ~= ""

-- How long is waited for what has to come, where nothing else is said. What
-- comes in a millisecond here may take a while on a machine that is busy.
local PATIENCE <const> = 30

sys.timeout(PATIENCE * h.slow)

-- Seconds, stretched as the build needs it.
function h.seconds(seconds)
  return seconds * h.slow
end

-- Ends the test as skipped, or as skipped when a tool is not there.
function h.skip(reason)
  lu.skip(reason)
end

function h.need(...)
  for _, tool in ipairs({ ... }) do
    if not h.which(tool) then
      lu.skip(tool .. " is not installed")
    end
  end
end

function h.which(tool)
  local path = (os.getenv("PATH") or "") .. ":/usr/local/sbin:/usr/sbin:/sbin"
  for directory in path:gmatch("[^:]+") do
    local file = io.open(directory .. "/" .. tool)
    if file then
      file:close()
      return directory .. "/" .. tool
    end
  end
end

-- Asks until the answer is true, and returns it; an error when it never is.
function h.wait_until(what, ask, seconds)
  seconds = seconds or PATIENCE
  local deadline = sys.now() + h.seconds(seconds)
  while true do
    local answer = ask()
    if answer then
      return answer
    end
    if sys.now() > deadline then
      error(("not so in %g s: %s"):format(h.seconds(seconds), what), 2)
    end
    sys.sleep(0.005)
  end
end

-- ---- files ----------------------------------------------------------------

local directories = {}

-- A directory that goes with the test.
function h.tmpdir()
  local path = assert(sys.mkdtemp())
  table.insert(directories, path)
  return path
end

function h.write_file(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
  return path
end

function h.read_file(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

-- ---- processes ------------------------------------------------------------

-- Process objects: what sys gives, and a name, and what is expected of the end.
local Process = {}
Process.__index = Process

local processes = {}

for _, name in ipairs({ "pid", "running", "used", "text", "write",
                        "close_stdin", "read_line" }) do
  Process[name] = function(self, ...)
    return self.handle[name](self.handle, ...)
  end
end

-- "exit", STATUS or "signal", NUMBER. A test that asks judges for itself.
function Process:wait(seconds)
  local how, number = self.handle:wait(h.seconds(seconds or PATIENCE))
  if how then
    self.expect = "any"
    return how, number
  end
  error(("%s: still running after %g s"):format(
    self.name, h.seconds(seconds or PATIENCE)), 2)
end

-- A signal that ends it is a test's own business: no end is expected then.
local harmless = { HUP = true, STOP = true, CONT = true, USR1 = true,
                   USR2 = true }

function Process:kill(signal)
  self.killed = self.killed or not harmless[signal or "TERM"]
  return sys.kill(self:pid(), signal or "TERM")
end

-- Sends SIGINT (or what is given) and takes the end, which must be 0.
function Process:stop(signal, seconds)
  sys.kill(self:pid(), signal or "INT")
  local how, number = self:wait(seconds)
  if how ~= "exit" or number ~= 0 then
    error(("%s: ended by %s %d"):format(self.name, how, number), 2)
  end
end

-- How many descriptors it has open, and a list of them.
function Process:fds()
  return sys.fds(self:pid())
end

function Process:usage()
  return assert(sys.usage(self:pid()))
end

-- All it wrote to standard error so far.
function Process:log()
  return self:text("stderr")
end

-- Waits for a line of standard output that matches; its captures or the line.
function Process:wait_line(pattern, seconds, stream)
  local deadline = sys.now() + h.seconds(seconds or PATIENCE)
  while true do
    local line, why = self:read_line(math.max(0, deadline - sys.now()), stream)
    if not line then
      error(("%s: no line like '%s': %s\n%s"):format(
        self.name, pattern, why, self:log()), 2)
    end
    if line:find(pattern) then
      return line:match(pattern)
    end
  end
end

-- Waits until the log holds a match; returns it.
function Process:wait_log(pattern, seconds)
  return h.wait_until(self.name .. " logs '" .. pattern .. "'", function()
    return self:log():match(pattern)
  end, seconds)
end

-- Waits until it has exactly so many descriptors open.
function Process:wait_fds(count, seconds)
  local last, list
  local ok = pcall(h.wait_until, "", function()
    last, list = self:fds()
    return last == count
  end, seconds)
  if not ok then
    error(("%s: %d descriptors, expected %d:\n%s"):format(
      self.name, last, count, table.concat(list, "\n")), 2)
  end
end

-- Starts a program: options as sys.spawn takes them, and `name`, `expect` (the
-- exit status after SIGINT, or "any"), `signal` that ends it (INT).
-- Another user may not be let into the build directory: a copy is for all.
local function reachable(path)
  local directory = h.tmpdir()
  local copy = directory .. "/" .. path:match("[^/]+$")
  h.output_of({ "cp", path, copy })
  h.output_of({ "chmod", "755", directory, copy })
  return copy
end

function h.start(options)
  if options.user and options[1]:sub(1, #h.build + 1) == h.build .. "/" then
    options[1] = reachable(options[1])
  end
  local handle, why = sys.spawn(options)
  if not handle then
    error(("cannot start %s: %s"):format(options[1], why), 2)
  end
  local process = setmetatable({
    handle = handle,
    name = options.name or options[1]:match("[^/]+$"),
    expect = options.expect or "any",
    signal = options.signal or "INT",
  }, Process)
  table.insert(processes, process)
  return process
end

-- Runs a tool to its end: {status=, signal=, stdout=, stderr=, timeout=}.
-- `input` goes to its standard input; `seconds` is how long it may take.
function h.run(options)
  local copy = {}
  for key, value in pairs(options) do
    copy[key] = value
  end
  copy.stdout = "memory"
  copy.stdin = options.input and "pipe" or options.stdin
  local process = h.start(copy)
  if options.input then
    process:write(options.input)
    process:close_stdin()
  end
  local how, number = process.handle:wait(
    h.seconds(options.seconds or PATIENCE))
  local result = {}
  if not how then
    result.timeout = true
    sys.kill(-process:pid(), "KILL")
    process.handle:wait(10)
  end
  result.status = how == "exit" and number or nil
  result.signal = how == "signal" and number or nil
  result.stdout = process:text()
  result.stderr = process:log()
  process.expect = "any"
  return result
end

-- As run, but only success will do; returns standard output.
function h.output_of(options)
  local result = h.run(options)
  if result.status ~= 0 then
    error(("%s: %s\n%s%s"):format(table.concat(options, " "),
      result.timeout and "took too long" or
      "ended with " .. tostring(result.status or result.signal),
      result.stdout, result.stderr), 2)
  end
  return result.stdout
end

-- ---- the programs under test ----------------------------------------------

function h.program(name)
  return h.build .. "/" .. name
end

-- A tokens file with one token, `test`, and that token. Made once: a relay has
-- only to read it.
local trusted

local function trust()
  if not trusted then
    local directory = assert(sys.mkdtemp())
    local path = directory .. "/tokens"
    local relay = assert(io.popen(("%s token new test --plain --tokens %s")
      :format(h.program("relay"), path)))
    trusted = { path = path, token = relay:read("l"), directory = directory }
    assert(relay:close())
  end
  return trusted
end

function h.forget_trust()
  if trusted then
    os.execute("rm -rf " .. trusted.directory)
  end
end

h.trust = trust

-- An authority, and a certificate of it for the relay. Made once, too.
local function certify()
  local directory = trust().directory
  if not trusted.ca then
    local certs = require("certs")
    local authority = certs.authority(directory)
    trusted.ca = authority.path
    trusted.relay = authority:sign("relay", certs.NAMES)
  end
  return trusted
end

-- What a mode means: "tls" is tokens, for the programs; "certs" is tokens
-- inside of TLS with the relay's certificate.
local function add_mode(name, command, mode)
  if h.workers then
    table.insert(command, "--workers")
    table.insert(command, h.workers)
  end
  if mode == "certs" then
    local made = certify()
    local words = name == "relay" and { "--tls-cert", made.relay.cert,
      "--tls-key", made.relay.key } or { "--tls-ca", made.ca }
    table.move(words, 1, #words, #command + 1, command)
    mode = "tls"
  end
  if mode == "tls" and name == "relay" then
    table.insert(command, "--tokens")
    table.insert(command, trust().path)
  elseif mode == "tls" then
    command.env = command.env or {}
    command.env.RELAY_TOKEN = command.env.RELAY_TOKEN or trust().token
  elseif mode then
    table.insert(command, "--mode")
    table.insert(command, mode)
  end
end

-- Fixed arguments, then those of the options' array part, then the mode.
local function start_program(name, fixed, options)
  local command = {}
  for key, value in pairs(options) do
    if type(key) == "string" then
      command[key] = value
    end
  end
  table.insert(command, h.program(name))
  for _, list in ipairs({ fixed, options }) do
    for _, argument in ipairs(list) do
      table.insert(command, tostring(argument))
    end
  end
  add_mode(name, command, options.mode or h.current_mode or h.mode)
  command.expect = options.expect or 0
  command.name = options.name or name
  return h.start(options.inside and options.inside:inside(command) or command)
end

-- start_relay{ARGUMENT, …, port=0, mode=, env=, nofile=, user=, …}: once it
-- listens, with `host` and `port`. `wait=false` does not wait; `inside` is the
-- namespace (netns.lua) that it is to run in.
function h.start_relay(options)
  options = options or {}
  local relay = start_program("relay", { options.port or 0 }, options)
  if options.wait ~= false then
    local host, port = relay:wait_line("^listening on (.*):(%d+)$")
    relay.host, relay.port = host, math.tointeger(port)
  end
  return relay
end

local function port_of(relay)
  return math.type(relay) and relay or relay.port
end

local function await_address(agent, options)
  if options.wait ~= false then
    agent:wait_address()
  end
  return agent
end

-- Waits for the (next) address; sets and returns `host`, `port`.
function Process:wait_address(seconds)
  local host, port = self:wait_line(
    "^established relay address: %((.*), (%d+)%)$", seconds)
  self.host, self.port = host, math.tointeger(port)
  return self.host, self.port
end

-- start_echoserver(RELAY | PORT, {ARGUMENT, …}): with `host` and `port`, the
-- address it was given.
function h.start_echoserver(relay, options)
  options = options or {}
  local agent = start_program("echoserver",
    { options.relay_host or "localhost", port_of(relay) }, options)
  return await_address(agent, options)
end

-- start_expose(RELAY | PORT, TARGET, {ARGUMENT, …}); TARGET as on the command
-- line, or a listening socket of the test.
function h.start_expose(relay, target, options)
  options = options or {}
  if type(target) == "userdata" then
    target = ("127.0.0.1:%d"):format(target:port())
  end
  local agent = start_program("expose",
    { options.relay_host or "localhost", port_of(relay), target }, options)
  return await_address(agent, options)
end

-- ---- connections ----------------------------------------------------------

-- A visitor: connects to a port, or to the address a program was given.
function h.connect(to, options)
  local port = math.type(to) and to or to.port
  local host = options and options.host or "127.0.0.1"
  local socket, why = sys.connect(host, port, options)
  if not socket then
    error(("cannot connect to %s:%d: %s"):format(host, port, why), 2)
  end
  return socket
end

-- A visitor of `agent` and the connection that `expose` makes for it to
-- `listener`: the two ends of one relayed connection.
function h.join(agent, listener, options)
  local visitor = h.connect(agent, options)
  local served, why = listener:accept()
  if not served then
    error("the visitor did not come through: " .. why, 2)
  end
  return visitor, served
end

-- The pump, and an error if any end failed.
function h.pump(ends)
  ends.timeout = h.seconds(ends.timeout or 60)
  local result = sys.pump(ends)
  if result.failed > 0 then
    error(("%d of %d ends failed; the first is %d: %s after %d bytes in, " ..
      "%d out"):format(result.failed, #ends, result.index, result.failure,
      result.at, result[result.index].sent), 2)
  end
  return result
end

-- Sends `count` bytes both ways at once between two sockets, with FINs, and
-- checks every byte.
function h.exchange(left, right, count)
  return h.pump({
    { left, send = count, send_seed = 1, recv = count, recv_seed = 2,
      fin = true, eof = true },
    { right, send = count, send_seed = 2, recv = count, recv_seed = 1,
      fin = true, eof = true },
  })
end

-- Sends `count` bytes to an echo and takes them back, to the end.
function h.echo(to, count)
  local socket = h.connect(to)
  h.pump({ { socket, send = count, recv = count, fin = true, eof = true } })
  socket:close()
end

-- Adds test(mode) to a set of tests once for each mode; plain_modes are those
-- in which anybody can be an agent.
h.plain_modes = h.mode and { h.mode } or { "auto", "splice", "copy" }

function h.each_mode(tests, name, test, modes)
  for _, mode in ipairs(modes or h.modes) do
    tests[name .. "_" .. mode] = function()
      h.current_mode = mode
      test(mode)
    end
  end
end

-- ---- before and after each test -------------------------------------------

local fds_before

function h.setup()
  h.current_mode = nil
  processes, directories = {}, {}
  collectgarbage()
  collectgarbage()
  fds_before = sys.fds()
end

local reports = {
  "ERROR: %a+Sanitizer", "WARNING: %a+Sanitizer", "runtime error: ",
  "definitely lost: [1-9]", "ERROR SUMMARY: [1-9]",
}

local function judge_log(process, problems)
  local log = process:log()
  for _, report in ipairs(reports) do
    if log:find(report) then
      table.insert(problems, process.name .. ": " .. report)
      return
    end
  end
end

-- Kills what is left of its group, and waits for that: it would be found as
-- left behind by the test.
local function end_group(group)
  if not sys.kill(-group, "KILL") then
    return
  end
  local function is_alive(pid)
    local file = io.open(("/proc/%d/stat"):format(pid))
    local text = file and file:read("a") or ""
    if file then
      file:close()
    end
    local state, of = text:match("%) (%a) %d+ (%d+)")
    return state and state ~= "Z" and tonumber(of) == group
  end
  for _ = 1, 1000 do
    local alive = false
    for _, pid in ipairs(sys.children() or {}) do
      alive = alive or is_alive(pid)
    end
    if not alive then
      return
    end
    sys.sleep(0.005)
  end
end

-- Ends it if need be; says what was wrong with how it ended.
local function end_process(process, problems)
  local handle = process.handle
  if process.expect == "any" or process.killed then
    if handle:running() then
      sys.kill(handle:pid(), "CONT")
      sys.kill(handle:pid(), "TERM")
      if not handle:wait(2) then
        sys.kill(-handle:pid(), "KILL")
        handle:wait(5)
      end
    end
    end_group(handle:pid())
    return
  end
  local early = not handle:running()
  if not early then
    -- A test may have stopped it. Not the other way round: at its end a
    -- sanitizer stops it too, and must not be disturbed.
    sys.kill(handle:pid(), "CONT")
    sys.kill(handle:pid(), process.signal)
  end
  local how, number = handle:wait(h.seconds(PATIENCE))
  if not how then
    table.insert(problems, ("%s: does not end after SIG%s"):format(
      process.name, process.signal))
    sys.kill(-handle:pid(), "KILL")
    handle:wait(5)
  elseif how ~= "exit" or number ~= process.expect then
    table.insert(problems, ("%s: ended%s with %s %d, expected %s"):format(
      process.name, early and " by itself" or "", how, number,
      tostring(process.expect)))
  elseif early and process.signal == "INT" and process.expect == 0 then
    table.insert(problems, process.name .. ": ended by itself")
  end
end

local function command_of(pid)
  local file = io.open(("/proc/%d/comm"):format(pid))
  local name = file and file:read("l")
  if file then
    file:close()
  end
  return name or "?"
end

-- Children that no process object stands for: what our programs left behind.
local function end_strays(problems)
  for _ = 1, 100 do
    local left = sys.children()
    if not left or #left == 0 then
      return
    end
    for _, pid in ipairs(left) do
      if sys.usage(pid) and sys.usage(pid).state ~= "Z" then
        table.insert(problems,
          ("left behind: process %d (%s)"):format(pid, command_of(pid)))
        sys.kill(pid, "KILL")
      end
      sys.reap(pid)
    end
  end
end

-- What the programs of the last test wrote to standard error.
h.last_logs = ""

-- Ends all that the test started; returns nil, or what was left or wrong.
function h.teardown()
  local problems, logs = {}, {}
  for i = #processes, 1, -1 do
    end_process(processes[i], problems)
  end
  for _, process in ipairs(processes) do
    judge_log(process, problems)
    local log = process:log()
    if log ~= "" then
      table.insert(logs, ("---- %s (%d)\n%s"):format(
        process.name, process:pid(), log))
    end
    process.handle:close()
  end
  h.last_logs = table.concat(logs, "\n")
  processes = {}
  end_strays(problems)
  for _, path in ipairs(directories) do
    os.execute("rm -rf " .. path)
  end
  directories = {}
  collectgarbage()
  collectgarbage()
  local fds_after, list = sys.fds()
  if fds_before and fds_after > fds_before then
    table.insert(problems, ("%d descriptors were left open in the test:\n%s")
      :format(fds_after - fds_before, table.concat(list, "\n")))
  end
  if #problems > 0 then
    return table.concat(problems, "\n")
  end
end

return h
