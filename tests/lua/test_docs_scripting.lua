-- SPDX-License-Identifier: MIT
--
-- What the pages for script writers show is true: every program text in them
-- is run. Right above each fence stands what it is:
--
--   <!-- policy: FILE -->   a whole policy: it passes --check, and its driver
--                           below shows that it does what the page says
--   <!-- part: NAME -->     entries of a policy's table: pass --check
--   <!-- in: HOOK -->       lines of a hook's body: run in a real relay, where
--                           they must not fail; what stands after "-->" is
--                           what that call or print gives ("…": anything)
--   <!-- console: NAME -->  typed as it stands, with the output that it shows
--   <!-- log: NAME -->      lines of the relay's log, in that order
--   <!-- drawing -->        nothing to run
--
-- Times are not compared, nor are ports; ports and paths that stand in a text
-- are replaced by ones of the test.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

local PAGES = { "docs/scripting.md", "docs/api.md" }

-- ---- the fences -------------------------------------------------------------

local function fences_of(path)
  local found, open, marker = {}, nil, nil
  local number = 0
  for line in h.read_file(h.source .. path):gmatch("([^\n]*)\n") do
    number = number + 1
    if open and line == "```" then
      open.text = table.concat(open, "\n") .. "\n"
      table.insert(found, open)
      open = nil
    elseif open then
      table.insert(open, line)
    elseif line:find("^```") then
      local kind, name = (marker or ""):match("^<!%-%- (%l+):? ?(%S*) %-%->$")
      open = { kind = kind, name = name, language = line:sub(4),
               where = ("%s:%d"):format(path, number), line = number }
    end
    marker = line
  end
  lu.assertNil(open, path .. ": a fence does not end")
  return found
end

local function each_fence(kind)
  local list = {}
  for _, path in ipairs(PAGES) do
    for _, fence in ipairs(fences_of(path)) do
      if fence.kind == kind then
        table.insert(list, fence)
      end
    end
  end
  return list
end

local function fence(kind, name)
  for _, one in ipairs(each_fence(kind)) do
    if one.name == name then
      return one
    end
  end
  error(("no fence '%s: %s'"):format(kind, name), 2)
end

local languages = { policy = "lua", part = "lua", ["in"] = "lua",
                    console = "console", log = "console", drawing = "" }

function T.test_every_fence_is_marked()
  for _, path in ipairs(PAGES) do
    local seen = {}
    for _, one in ipairs(fences_of(path)) do
      lu.assertNotNil(languages[one.kind], one.where .. " has no marker")
      lu.assertEquals(one.language, languages[one.kind], one.where)
      if one.kind ~= "in" and one.kind ~= "drawing" then
        local key = one.kind .. one.name
        lu.assertNil(seen[key], one.where .. ": that name is taken")
        seen[key] = true
      end
    end
  end
end

-- ---- replacing and comparing ------------------------------------------------

-- Each text to be replaced must be there; a number as a word of its own.
local function replaced(text, what)
  for from, to in pairs(what or {}) do
    local pattern = from:gsub("%p", "%%%0")
    if from:find("^%d+$") then
      pattern = "%f[%d]" .. pattern .. "%f[%D]"
    end
    local count
    text, count = text:gsub(pattern, (tostring(to):gsub("%%", "%%%%")))
    lu.assertTrue(count > 0, "there is no " .. from)
  end
  return text
end

local function plain(line)
  return (line:gsub("^%d+%-%d+%-%d+T[%d:.]+Z", "TIME")
    :gsub("duration_ms=%d+", "duration_ms=N")
    :gsub("%f[%d]%d%d%d%d+%f[%D]", "PORT")
    :gsub("%d+%.%d s", "N s"))
end

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("([^\n]*)\n") do
    table.insert(lines, plain(line))
  end
  return lines
end

-- Waits until the relay's log has the lines of the fence, in their order.
local function expect_log(relay, name)
  local wanted = lines_of(fence("log", name).text)
  local missing
  local ok = pcall(h.wait_until, "", function()
    local at = 1
    for _, line in ipairs(lines_of(relay:log())) do
      at = at + (line == wanted[at] and 1 or 0)
    end
    missing = wanted[at]
    return missing == nil
  end, 5)
  lu.assertTrue(ok, "the log has no line\n" .. tostring(missing))
end

-- The command of a console fence and what it shows.
local function session(name)
  local command, output = fence("console", name).text:match("^%$ ([^\n]*)\n(.*)")
  return command, output
end

local function shell(directory, command)
  local build = h.output_of({ "realpath", h.build }):match("[^\n]+")
  return h.run({ "sh", "-c", command, cwd = directory,
                 env = { PATH = build .. ":" .. os.getenv("PATH") } })
end

-- ---- ten minutes ------------------------------------------------------------

-- Runs the session's first word from the build, as the page types it.
local function start(directory, name, what)
  local command, output = session(name)
  local words = { expect = 0 }
  for word in replaced(command, what):gmatch("%S+") do
    table.insert(words, word)
  end
  words.name = words[1]
  words[1] = h.output_of({ "realpath", h.program(words[1]) }):match("[^\n]+")
  words.cwd = directory
  local process = h.start(words)
  local line = process:wait_line("^(.+)$")
  lu.assertEquals(plain(line), plain(output:match("[^\n]*")))
  process.port = math.tointeger(line:match("(%d+)%)?$"))
  return process
end

local function edit(directory, from, to)
  local path = directory .. "/hello.lua"
  h.write_file(path, replaced(h.read_file(path), { [from] = to }))
end

local function assert_session(name, directory, status, what)
  local command, output = session(name)
  local result = shell(directory, replaced(command, what))
  lu.assertEquals({ result.stdout .. result.stderr, result.status },
    { output, status })
end

function T.test_ten_minutes()
  h.need("nc")
  local directory = h.tmpdir()
  h.write_file(directory .. "/hello.lua", fence("policy", "hello.lua").text)
  assert_session("check", directory, 0)
  local relay = start(directory, "run-relay", { ["8080"] = real.free_port() })
  local agent = start(directory, "run-echo", { ["8080"] = relay.port })
  assert_session("run-visitor", directory, 0, { ["8081"] = agent.port })
  expect_log(relay, "run")
  edit(directory, "hello", "welcome")
  assert_session("reload", directory, 0, { ["$(pidof relay)"] = relay:pid() })
  relay:wait_log("policy reloaded")
  lu.assertEquals(policy.ask(agent, "hi"), "hi")
  expect_log(relay, "reload")
  edit(directory, "visitor", "visitr")
  assert_session("wrong", directory, 1)
  relay:kill("HUP")
  expect_log(relay, "wrong")
  edit(directory, "visitr", "visitor")
  edit(directory, "conn.addr", "conn.adr")
  policy.count(relay, "policy reloaded")
  relay:kill("HUP")
  h.wait_until("the mistake is in force", function()
    return policy.count(relay, "policy reloaded") == 2
  end)
  lu.assertEquals({ policy.ask(agent, "hi") }, { "", "reset" })
  expect_log(relay, "fails")
end

-- ---- whole policies ---------------------------------------------------------

-- Those that ask for a socket must not wait for it in vain.
local function write(name, what)
  local path = h.tmpdir() .. "/" .. name
  local text = replaced(fence("policy", name).text, what)
  h.write_file(path, text)
  local result = h.run({ h.program("relay"), "--check", "--script", path })
  lu.assertEquals(result.status, 0, result.stderr)
  return path
end

-- A relay with the policy; `what` is replaced in it.
local function relay_of(name, what, options)
  options = options or {}
  table.insert(options, "--script")
  table.insert(options, write(name, what))
  return h.start_relay(options)
end

local function scene(name, what, options)
  local relay = relay_of(name, what, options)
  return relay, h.start_echoserver(relay)
end

local function assert_served(to, from)
  local visitor = h.connect(to, { from = from })
  visitor:send("hi")
  visitor:shutdown()
  lu.assertEquals({ visitor:recv_all() }, { "hi", "eof" })
  visitor:close()
end

-- Denied so soon that connecting may already tell.
local function assert_denied(to, from)
  local visitor, why = sys.connect("127.0.0.1", to.port, { from = from })
  if visitor then
    visitor:send("hi")
    why = select(2, visitor:recv_all())
    visitor:close()
  end
  lu.assertEquals(why, "reset")
end

-- A visitor that stays, and has been served.
local function stay(agent, from)
  local visitor = h.connect(agent, { from = from })
  visitor:send("x")
  lu.assertEquals(visitor:recv_exact(1), "x")
  return visitor
end

local function close_all(sockets)
  for _, socket in ipairs(sockets) do
    socket:close()
  end
end

local drivers = {}

drivers["hello.lua"] = T.test_ten_minutes

local function three_at_a_time(relay, agent)
  local live = { stay(agent), stay(agent), stay(agent) }
  assert_denied(agent)
  assert_served(agent, "127.0.0.9")
  live[1]:close()
  relay:wait_log("visitor closed[^\n]*bytes_in=1 ")
  h.wait_until("there is room again", function()
    return policy.ask(agent, "hi") == "hi"
  end)
  close_all(live)
end

drivers["decides.lua"] = function()
  local relay, agent = scene("decides.lua")
  three_at_a_time(relay, agent)
  relay:wait_log("reason=\"three are enough\"")
  relay:wait_log("info 127.0.0.1 got 1 bytes in %d+%.%d s: ")
end

drivers["waits.lua"] = function()
  local relay, agent = scene("waits.lua")
  assert_served(agent)
  assert_denied(agent, "127.0.0.9")
  relay:wait_log("not from the office")
end

-- The counts are still there after a reload: taking back would fail else.
drivers["remembers.lua"] = function()
  local relay, agent = scene("remembers.lua")
  local live = stay(agent)
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  live:close()
  relay:wait_log("visitor closed")
  assert_served(agent)
  lu.assertNotStrContains(relay:log(), "policy hook failed")
end

drivers["per-address.lua"] = function()
  local relay, agent = scene("per-address.lua")
  local early = stay(agent, "127.0.0.8")
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  three_at_a_time(relay, agent)
  relay:wait_log("too many of one address")
  early:close()
end

drivers["per-minute.lua"] = function()
  local _, agent = scene("per-minute.lua")
  for _ = 1, 30 do
    assert_served(agent)
  end
  assert_denied(agent)
  assert_served(agent, "127.0.0.9")
end

drivers["deny-list.lua"] = function()
  local list = h.tmpdir() .. "/denied"
  h.write_file(list, "# enemies\n192.0.2.0/24\n127.0.0.9\n")
  local relay, agent = scene("deny-list.lua", { ["/etc/relay/denied"] = list })
  assert_served(agent)
  assert_denied(agent, "127.0.0.9")
  h.write_file(list, "")
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  assert_served(agent, "127.0.0.9")
end

drivers["tiers.lua"] = function()
  local relay, agent = scene("tiers.lua")
  assert_served(agent)
  expect_log(relay, "tiers")
  local began = sys.now()
  h.echo(agent, 60000)
  lu.assertTrue(sys.now() - began > 0.3, "no faster than its tier")
  local office = h.connect(agent, { from = "127.0.0.9" })
  h.pump({ { office, send = 60000, recv = 60000, fin = true, eof = true } })
  office:close()
  relay:wait_log("visitor closed[^\n]* tier=office")
end

drivers["own-ports.lua"] = function()
  local port = real.free_port()
  local relay = relay_of("own-ports.lua", { ["8100"] = port })
  local web = h.start_echoserver(relay, { "--name", "web" })
  lu.assertEquals({ web.host, web.port }, { "web.example.org", port })
  lu.assertEquals(h.start_echoserver(relay).host, "localhost")
  local err = typed.agent(relay, { words = "name=web", refused = true }).err
  lu.assertEquals(err.reason, ("port %d is in use"):format(port))
end

drivers["ranges.lua"] = function()
  local relay = relay_of("ranges.lua", { ["10.0.0.0/8"] = "127.0.0.9" })
  for _ = 1, 3 do
    local port = typed.agent(relay).port
    lu.assertTrue(port >= 9100 and port <= 9199, port)
    port = typed.agent(relay, { from = "127.0.0.9" }).port
    lu.assertTrue(port >= 9000 and port <= 9099, port)
  end
end

-- Visitors of a shared port: what each says, and which service it reaches.
local function route(relay, port, cases)
  local services = {}
  for _, name in ipairs(cases.agents) do
    services[name] = sys.listen()
    h.start_expose(relay, services[name], { "--name", name })
  end
  for bytes, name in pairs(cases.served) do
    local visitor = h.connect(port)
    visitor:send(bytes)
    local served = assert(services[name]:accept(h.seconds(10)))
    lu.assertEquals(served:recv_exact(#bytes), bytes)
    served:close()
    visitor:close()
  end
  for bytes, words in pairs(cases.denied) do
    typed.turned_away(port, bytes)
    relay:wait_log(words)
  end
  return services
end

local function hello(name)
  local names = ("\0" .. (">s2"):pack(name))
  local extension = (">I2"):pack(0) .. (">s2"):pack((">s2"):pack(names))
  local body = "\3\3" .. ("r"):rep(32) .. "\0" ..
    (">s2"):pack("\x13\x01") .. "\1\0" .. (">s2"):pack(extension)
  return "\x16\3\1" .. (">s2"):pack("\1" .. (">s3"):pack(body))
end

drivers["sni.lua"] = function()
  local port = real.free_port()
  local relay = relay_of("sni.lua", { ["443"] = port })
  close_all(route(relay, port, {
    agents = { "a.example", "b.example" },
    served = { [hello("A.example")] = "a.example",
               [hello("b.example")] = "b.example" },
    denied = { [hello("c.example")] = "nobody serves c.example",
               ["hi"] = "nobody serves nil" },
  }))
end

drivers["http-host.lua"] = function()
  local port = real.free_port()
  local relay = relay_of("http-host.lua", { ["80"] = port })
  local function get(host)
    return "GET / HTTP/1.1\r\nHost: " .. host .. "\r\n\r\n"
  end
  route(relay, port, {
    agents = { "a.example", "b.example" },
    served = { [get("A.example")] = "a.example",
               [get("b.example:80")] = "b.example" },
    denied = { [get("c.example")] = "no such site: c.example",
               ["nonsense"] = "no such site: nil" },
  })
end

drivers["magic.lua"] = function()
  local port = real.free_port()
  local relay = relay_of("magic.lua", { ["443"] = port })
  local services = route(relay, port, {
    agents = { "ssh", "web" },
    served = { ["SSH-2.0-x\r\n"] = "ssh", [hello("a")] = "web" },
    denied = { ["GET /"] = "neither SSH nor TLS" },
  })
  local silent = h.connect(port)
  local served = assert(services.ssh:accept(h.seconds(10)))
  served:send("greeting")
  lu.assertEquals(silent:recv_exact(8), "greeting")
  close_all({ silent, served })
end

-- Two echo servers on a shared port, and which of them serves a visitor.
local function two_agents(name, names)
  local port = real.free_port()
  local relay = relay_of(name, { ["8443"] = port },
    { "--log-level", "debug" })
  for _, agent in ipairs(names) do
    h.start_echoserver(relay, { "--name", agent })
  end
  local seen = 0
  return function(from)
    assert_served({ port = port }, from)
    seen = seen + 1
    return h.wait_until("it was joined", function()
      local at, agent = 0, nil
      for number in relay:log():gmatch("visitor joined conn=%d+ agent=(%d+)") do
        at, agent = at + 1, number
      end
      return at == seen and agent
    end)
  end, relay
end

drivers["sticky.lua"] = function()
  local served_by = two_agents("sticky.lua", { "one", "two" })
  local seen = {}
  for i = 2, 9 do
    local agent = served_by("127.0.0." .. i)
    seen[agent] = true
    for _ = 1, 2 do
      lu.assertEquals(served_by("127.0.0." .. i), agent)
    end
  end
  local count = 0
  for _ in pairs(seen) do
    count = count + 1
  end
  lu.assertEquals(count, 2)
end

drivers["canary.lua"] = function()
  local served_by, relay = two_agents("canary.lua", { "main", "canary" })
  local count = {}
  for _ = 1, 40 do
    local agent = served_by()
    count[agent] = (count[agent] or 0) + 1
  end
  lu.assertEquals(count, { ["1"] = 38, ["2"] = 2 })
  relay:wait_log("canary=yes")
end

drivers["quota.lua"] = function()
  local relay, agent = scene("quota.lua")
  h.echo(agent, 400)
  assert_served(agent)
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  h.echo(agent, 400)
  h.wait_until("both were counted", function()
    return policy.count(relay, "visitor closed") == 3
  end)
  assert_denied(agent)
  relay:wait_log("the quota of the day is used up")
end

drivers["maintenance.lua"] = function()
  local path = h.tmpdir() .. "/maintenance"
  local relay, agent = scene("maintenance.lua",
    { ["/run/relay/maintenance"] = path, ["every(1,"] = "every(0.02," })
  local live = stay(agent)
  h.write_file(path, "")
  h.wait_until("it is closed", function()
    return policy.ask(agent, "hi") == ""
  end)
  relay:wait_log("reason=maintenance")
  live:send("x")
  lu.assertEquals(live:recv_exact(1), "x")
  live:close()
  os.remove(path)
  h.wait_until("it is open", function()
    return policy.ask(agent, "hi") == "hi"
  end)
end

drivers["hours.lua"] = function()
  local _, open = scene("hours.lua", { ["8, 18"] = "0, 24" })
  assert_served(open)
  local relay, closed = scene("hours.lua", { ["8, 18"] = "24, 24" })
  assert_denied(closed)
  relay:wait_log("closed at night")
end

drivers["log-lines.lua"] = function()
  local relay, agent = scene("log-lines.lua", nil, { "--log-level", "debug" })
  assert_served(agent)
  relay:wait_log("\n%d%d:%d%d:%d%d 127%.0%.0%.1:%d+ %-> :" .. agent.port ..
    " 2/2 ended\n")
  lu.assertNotStrContains(relay:log(), "this is dropped")
  relay:wait_log("Z info address established ")
end

drivers["metrics.lua"] = function()
  local path = h.tmpdir() .. "/relay.prom"
  relay_of("metrics.lua", { ["/var/lib/node_exporter/relay.prom"] = path })
  local text = h.wait_until("it is written", function()
    return io.open(path) and h.read_file(path)
  end)
  lu.assertStrContains(text, "relay_agents 0\n")
  lu.assertStrContains(text, "relay_bytes_in 0\n")
end

drivers["dynamic-dns.lua"] = function()
  local relay, agent = scene("dynamic-dns.lua")
  assert_served(agent)
  assert_denied(agent, "127.0.0.9")
  relay:wait_log("not from home")
  relay = relay_of("dynamic-dns.lua", { ['"localhost"'] = '"x.invalid"' })
  relay:wait_log("warn x.invalid: ")
end

drivers["ask-redis.lua"] = function()
  h.need("redis-server", "redis-cli")
  if not package.searchpath("redis", "/usr/share/lua/5.3/?.lua") then
    h.skip("lua-redis is not installed")
  end
  local port = real.free_port()
  h.start({ h.which("redis-server"), "--port", tostring(port), "--save", "",
            "--bind", "127.0.0.1", "--dir", h.tmpdir(), signal = "TERM" })
  h.wait_until("redis answers", function()
    return h.run({ "redis-cli", "-p", tostring(port), "sadd", "agents",
                   "web" }).status == 0
  end)
  local relay = relay_of("ask-redis.lua", { ["6379"] = port })
  h.start_echoserver(relay, { "--name", "web" })
  lu.assertEquals(typed.agent(relay, { words = "name=x", refused = true })
    .err.code, "denied")
  relay:wait_log("reason=\"not in redis\"")
  relay = relay_of("ask-redis.lua", { ["6379"] = real.free_port() })
  lu.assertEquals(typed.agent(relay, { words = "name=web", refused = true })
    .err.code, "denied")
  relay:wait_log("hook=auth error=[^\n]*127.0.0.1:%d+")
end

-- Takes one request, answers it, and gives it back.
local function serve_once(listener, status)
  local client = assert(listener:accept(h.seconds(10)))
  local request, length = "", 0
  repeat
    local line = assert(client:recv_line(h.seconds(10)))
    length = tonumber(line:lower():match("^content%-length: (%d+)")) or length
    request = request .. line .. "\n"
  until line:match("^\r?$")
  if length > 0 then
    request = request .. client:recv_exact(length)
  end
  client:send("HTTP/1.1 " .. status .. "\r\nContent-Length: 2\r\n" ..
    "Connection: close\r\n\r\nok")
  client:shutdown()
  client:recv_all()
  client:close()
  return request
end

local function need_luasocket()
  if not package.searchpath("socket", package.path) then
    h.skip("lua-socket is not installed")
  end
end

drivers["ask-web.lua"] = function()
  need_luasocket()
  local web = sys.listen()
  local relay = relay_of("ask-web.lua", { ["8000"] = web:port() })
  for name, status in pairs({ web = "200 OK", other = "403 No" }) do
    local agent = h.start({ h.program("echoserver"), "--name", name,
                            "localhost", tostring(relay.port) })
    lu.assertStrContains(serve_once(web, status),
      "GET /may-come/" .. name .. " ")
    if name == "web" then
      agent:wait_address()
    else
      lu.assertEquals({ agent:wait() }, { "exit", 1 })
    end
  end
  relay:wait_log("reason=\"refused: 403\"")
  web:close()
end

drivers["newest.lua"] = function()
  local relay = relay_of("newest.lua")
  local old = h.start_echoserver(relay, { "--name", "a", expect = "any" })
  h.start_echoserver(relay, { "--name", "b" })
  h.start_echoserver(relay, { "--name", "a" })
  old:wait()
  relay:wait_log("agent gone[^\n]*reason=\"a newer one has come\"")
  lu.assertEquals(policy.count(relay, "agent gone"), 1)
end

drivers["who.lua"] = function()
  local relay, agent = scene("who.lua", { ["every(10,"] = "every(0.05," })
  local live = stay(agent)
  relay:wait_log("info 127.0.0.1 at echo for 0 s: 1 in, 1 out\n")
  live:close()
end

drivers["too-long.lua"] = function()
  local relay, agent = scene("too-long.lua",
    { ["8 * 3600"] = "0.1", ["return 60"] = "return 0.05" })
  local live = stay(agent)
  lu.assertEquals({ live:recv_all() }, { "", "reset" })
  live:close()
  relay:wait_log("visitor closed [^\n]*reason=\"here for too long\"")
end

drivers["ban.lua"] = function()
  local relay, agent = scene("ban.lua")
  for _ = 1, 10 do
    assert_served(agent)
  end
  assert_denied(agent)
  assert_denied(agent)
  relay:wait_log("warn 127.0.0.1 is banned for an hour")
  lu.assertEquals(policy.count(relay, "is banned for an hour"), 1)
  assert_served(agent, "127.0.0.9")
end

drivers["webhook.lua"] = function()
  need_luasocket()
  local room = sys.listen()
  local relay, agent = scene("webhook.lua", { ["8000"] = room:port() })
  agent:stop()
  lu.assertStrContains(serve_once(room, "200 OK"), "echo has gone: EOF")
  room:close()
  relay:wait_log("agent gone")
end

for name, drive in pairs(drivers) do
  if name ~= "hello.lua" then
    T["test_policy_" .. name:gsub("%W", "_")] = drive
  end
end

function T.test_every_policy_has_its_driver()
  for _, one in ipairs(each_fence("policy")) do
    lu.assertNotNil(drivers[one.name], one.where)
  end
end

-- ---- parts and fragments ----------------------------------------------------

local function assert_check(text, where)
  local result = h.run({ h.program("relay"), "--check", "--script",
                         policy.write(text) })
  lu.assertEquals(result.status, 0, where .. "\n" .. result.stderr)
end

function T.test_parts()
  for _, one in ipairs(each_fence("part")) do
    assert_check("return {\n" .. one.text .. "}", one.where)
  end
end

local arguments = {
  start = "prev", save = "", stop = "reason", auth = "agent, cred",
  allocate = "agent, want", visitor = "conn, agents", peek = "conn, bytes",
  open = "conn", close = "conn", agent_gone = "agent, reason", tick = "now",
  log = "event",
}

-- What a fragment may use beside the hook's arguments.
local prologue = [[
local function CHECK(line, wanted, ...)
  local got = {}
  for i = 1, select("#", ...) do got[i] = tostring((select(i, ...))) end
  got = table.concat(got, " ")
  local pattern = wanted:gsub("%p", "%%%0"):gsub("…", ".*")
  if not got:find("^" .. pattern .. "$") then
    error(("line %d gives '%s', not '%s'"):format(line, got, wanted))
  end
end
]]

-- "CALL --> RESULT" as a check of that.
local function checked(text)
  local lines, number = {}, 0
  for line in text:gmatch("([^\n]*)\n") do
    number = number + 1
    local call, wanted = line:match("^%s*(.-)%s*%-%-> (.*)$")
    if call then
      call = call:match("^print(%b())$") or "(" .. call .. ")"
      line = ("CHECK(%d, %q, %s)"):format(number, wanted, call:sub(2, -2))
    end
    table.insert(lines, line)
  end
  return table.concat(lines, "\n")
end

-- A script where `hook` is the fragment, and all else lets it be called.
local function script_of(hook, text)
  local hooks = {
    save = "save = function() return { n = 1 } end,",
    visitor = hook == "peek" and
      "visitor = function(conn) conn:peek(2) end," or "visitor = print,",
    peek = "peek = function() end,",
  }
  hooks[hook] = ("%s = function(%s) %s\n%s\nend,"):format(hook,
    arguments[hook], hook == "log" and "ENTERED = true" or
    "print('entered', '" .. hook .. "')", checked(text))
  local all = prologue .. "local ENTERED\nreturn {"
  for _, entry in pairs(hooks) do
    all = all .. entry
  end
  return all .. "\n}"
end

local function run_fragment(one)
  local hook = one.name
  lu.assertNotNil(arguments[hook], one.where .. ": no hook " .. hook)
  local relay = policy.relay(script_of(hook, one.text))
  local agent = h.start({ h.program("echoserver"), "localhost",
                          tostring(relay.port) })
  local given = pcall(agent.wait_address, agent, 2)
  if given then
    policy.ask(agent, "hello")
  end
  relay:kill("HUP")
  sys.kill(agent:pid(), "INT")
  agent:wait()
  if hook == "tick" then
    relay:wait_log("entered tick")
  end
  relay:stop()
  local log = relay:log()
  lu.assertNotStrContains(log, "policy hook failed", one.where)
  if hook ~= "log" then
    lu.assertStrContains(log, "entered " .. hook, false, one.where .. "\n" ..
      log)
  end
end

for _, path in ipairs(PAGES) do
  for _, one in ipairs(fences_of(path)) do
    if one.kind == "in" then
      T["test_" .. one.where:gsub("%W", "_") .. "_in_" .. one.name] =
        function()
          run_fragment(one)
        end
    end
  end
end

return T
