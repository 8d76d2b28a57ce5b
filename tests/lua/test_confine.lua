-- SPDX-License-Identifier: MIT
--
-- What the relay gives up, and that it works without it. A shim (shim/escape.c)
-- stands for a bug that has got hold of the process.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local sys = h.sys

local T = { limit = 60 }

local is_root = h.output_of({ "id", "-u" }) == "0\n"

local function need_root()
  if not is_root then
    h.skip("only root can become another user")
  end
end

-- What --print-sandbox says: {["core dumps"] = "no", …}, and all of it.
local function printed(...)
  local text = h.output_of({ h.program("relay"), "0", "--print-sandbox", ... })
  local lines = {}
  for key, value in text:gmatch("([%w ]+): ([^\n]*)\n") do
    lines[key] = lines[key] or value
  end
  return lines, text
end

local function need_sandbox()
  local lines = printed()
  if not lines.landlock:find("^version") or lines.seccomp ~= "yes" then
    h.skip("this kernel cannot confine: landlock " .. lines.landlock ..
      ", seccomp " .. lines.seccomp)
  end
  return lines
end

local function status_of(process)
  local status = {}
  local text = h.read_file(("/proc/%d/status"):format(process:pid()))
  for key, value in text:gmatch("(%w+):%s*([^\n]*)") do
    status[key] = value
  end
  return status
end

-- ---- ways out ---------------------------------------------------------------

-- A relay that is taken over, and how each try ended: {connect = "EPERM", …}.
local function escape(options, listener)
  local file = h.write_file(h.tmpdir() .. "/secret", "of somebody else")
  options.env = {
    LD_PRELOAD = h.build .. "/tests/escape.so", ESCAPE_FILE = file,
    ESCAPE_PORT = listener:port(),
    ASAN_OPTIONS = (os.getenv("ASAN_OPTIONS") or "") ..
      ":verify_asan_link_order=0" }
  local relay = h.start_relay(options)
  relay:kill("USR1")
  relay:wait_log("escape end ok")
  local ends = {}
  for name, how in relay:log():gmatch("escape ([%w_]+) (%w+)") do
    ends[name] = how
  end
  ends["end"] = nil
  return ends, relay
end

-- Everything is denied but TCP sockets and libraries.
local confined = {
  connect = "EPERM", sendto = "EPERM", sendmsg = "EPERM", sendmmsg = "EPERM",
  tcp = "ok", udp = "EPERM", ["local"] = "EPERM", netlink = "EPERM",
  raw = "EPERM", packet = "EPERM", seqpacket = "EPERM", mptcp = "EPERM",
  socketpair = "EPERM", execve = "EPERM", execveat = "EPERM", fork = "EPERM",
  clone3 = "ENOSYS", unshare = "EPERM", ptrace = "EPERM",
  process_vm_readv = "EPERM", io_uring = "EPERM", bpf = "EPERM",
  userfaultfd = "EPERM", keyctl = "EPERM", mount = "EPERM", ioctl = "EPERM",
  newer = "ENOSYS", x32 = "ENOSYS", write = "EACCES", read = "EACCES",
  make = "EACCES", remove = "EACCES", library = "ok",
}

local function expected(changes)
  local ends = {}
  for name, how in pairs(confined) do
    ends[name] = changes[name] or how
  end
  if h.sanitized then
    ends.fork = "ok" -- a look for leaks is another process
    ends.ptrace = nil
  end
  return ends
end

local function assert_ends(ends, changes)
  if not ends.x32 then
    ends.x32 = "ENOSYS" -- another processor
  end
  ends.kill = nil -- of Landlock's newer versions
  if h.sanitized then
    ends.ptrace = nil
  end
  lu.assertEquals(ends, expected(changes))
end

function T.test_nothing_gets_out()
  need_sandbox()
  local listener = sys.listen()
  local ends, relay = escape({}, listener)
  local version = math.tointeger(relay:log():match("landlock=\"version (%d+)"))
  if version >= 6 then
    lu.assertEquals(ends.kill, "EPERM")
  end
  assert_ends(ends, {})
  lu.assertNil(listener:accept(0), "it was connected to")
  h.echo(h.start_echoserver(relay), 100000)
end

-- That the tries are worth something: without a sandbox they go through.
function T.test_without_a_sandbox_they_do()
  need_root()
  local ends, relay = escape({ "--sandbox", "off" }, sys.listen())
  for name, how in pairs({ connect = "ok", udp = "ok", netlink = "ok",
      ["local"] = "ok", socketpair = "ok", execve = "ENOENT",
      execveat = "ENOENT", fork = "ok", write = "ok", read = "ok",
      make = "ok", remove = "ok", kill = "ok" }) do
    lu.assertEquals(name .. " " .. ends[name], name .. " " .. how)
  end
  for _, name in ipairs({ "sendto", "sendmsg", "sendmmsg", "io_uring", "bpf",
      "keyctl", "mount", "ioctl" }) do
    lu.assertNotEquals(ends[name], "EPERM", name)
  end
  relay:wait_log("info not confined")
end

local connecting = { connect = "ok", udp = "ok" }

-- The system may have TCP Fast Open switched off: then it is another error.
local function assert_connecting(ends)
  for _, name in ipairs({ "sendto", "sendmsg", "sendmmsg" }) do
    lu.assertNotEquals(ends[name], "EPERM")
    ends[name] = "EPERM"
  end
  assert_ends(ends, connecting)
end

function T.test_connections_out_and_nothing_else()
  need_sandbox()
  local listener = sys.listen()
  local ends, relay = escape({ "--allow", "connect" }, listener)
  assert_connecting(ends)
  lu.assertNotNil(listener:accept(1))
  relay:wait_log("info confined [^\n]*connect=\"%-%-allow connect\" exec=no")
end

function T.test_a_script_with_sockets_widens_it()
  need_sandbox()
  local path = policy.write("return { visitor = function() relay.tcp() end }")
  local ends, relay = escape({ "--script", path }, sys.listen())
  assert_connecting(ends)
  relay:wait_log('info confined [^\n]*connect="' .. path:gsub("%p", "%%%0") ..
    ':1: tcp" exec=no files="those it needs"')
end

-- ---- row 38 -----------------------------------------------------------------

-- A whole session, its start and its end too.
function T.test_a_relay_never_connects()
  h.need("strace")
  if h.sanitized then
    h.skip("a look for leaks cannot be traced")
  end
  local directory = h.tmpdir()
  local trace = directory .. "/trace"
  local relay = h.start({ "strace", "-f", "-qq", "-o", trace, "-e",
    "trace=connect,execve,io_uring_setup,sendto,socket", h.program("relay"),
    "0", "--state", directory .. "/state", "--tokens", h.trust().path,
    "--script", policy.write([[return { visitor = function() end }]]),
    name = "relay" })
  local _, port = relay:wait_line("^listening on (.*):(%d+)$")
  local agent = h.start_echoserver(math.tointeger(port),
    { mode = "tls", "--pool", "2" })
  h.echo(agent, 100000)
  local traced = math.tointeger(h.output_of({ "pgrep", "-P", relay:pid() })
    :match("%d+"))
  sys.kill(traced, "HUP")
  relay:wait_log("policy reloaded")
  agent:stop()
  sys.kill(traced, "INT")
  relay:wait()
  local text = h.read_file(trace)
  lu.assertNil(text:match("[^\n]*connect%([^\n]*"))
  lu.assertNil(text:match("[^\n]*FASTOPEN[^\n]*"))
  lu.assertNil(text:match("[^\n]*io_uring[^\n]*"))
  lu.assertStrContains(text, "socket(AF_INET")
  lu.assertEquals(select(2, text:gsub("execve%(", "")), 1)
end

-- ---- it goes on working -----------------------------------------------------

local function revoke(tokens, name)
  h.output_of({ h.program("relay"), "token", "revoke", name, "--tokens",
    tokens })
end

local function new_token(tokens, name)
  return h.output_of({ h.program("relay"), "token", "new", name, "--tokens",
    tokens }):match("%S+")
end

-- A directory with all that a relay may have, and its options.
local function belongings()
  local directory = h.tmpdir()
  local tokens = directory .. "/tokens"
  local token = new_token(tokens, "one")
  h.write_file(directory .. "/words.lua", "return 'first'")
  policy.write([[
    local words = require "words"
    return { start = function() print("words:", words) end }]],
    directory .. "/policy.lua")
  return { "--tokens", tokens, "--state", directory .. "/state", "--script",
    directory .. "/policy.lua" }, directory, token
end

local function replace(path, text)
  h.write_file(path .. ".new", text)
  h.output_of({ "mv", path .. ".new", path })
end

local function assert_works(relay, directory, token)
  local agent = h.start_echoserver(relay, { mode = "tls",
    env = { RELAY_TOKEN = token } })
  h.echo(agent, 100000)
  lu.assertStrContains(h.output_of({ "ls", directory .. "/state" }), "lease-")
  new_token(directory .. "/tokens", "two") -- another file takes its place
  revoke(directory .. "/tokens", "one")
  replace(directory .. "/words.lua", "return 'second'")
  replace(directory .. "/policy.lua",
    h.read_file(directory .. "/policy.lua") .. "\n")
  agent.expect = 1
  relay:kill("HUP")
  relay:wait_log("info words: second")
  relay:wait_log("token withdrawn token=one")
  agent:wait()
  h.wait_until("the lease is forgotten", function()
    return h.output_of({ "ls", directory .. "/state" }) == ""
  end)
end

function T.test_reloads_and_state_go_on()
  need_sandbox()
  local options, directory, token = belongings()
  local relay = h.start_relay(options)
  relay:wait_log("info confined [^\n]*connect=no")
  assert_works(relay, directory, token)
end

function T.test_another_user()
  need_root()
  local options, directory, token = belongings()
  h.output_of({ "mkdir", directory .. "/state" })
  h.output_of({ "chown", "-R", "nobody", directory })
  table.insert(options, "--user")
  table.insert(options, "nobody")
  local relay = h.start_relay(options)
  local status = status_of(relay)
  local id = h.output_of({ "id", "-u", "nobody" }):match("%d+")
  lu.assertEquals(status.Uid, (id .. "\t"):rep(4):sub(1, -2))
  lu.assertNil(status.Gid:match("%f[%d]0%f[%D]"))
  lu.assertNil(status.Groups:match("%f[%d]0%f[%D]"))
  for _, set in ipairs({ "CapPrm", "CapEff" }) do
    lu.assertEquals(tonumber(status[set], 16), 1 << 10) -- ports below 1024
  end
  lu.assertEquals(tonumber(status.CapBnd, 16), 0)
  lu.assertEquals(status.NoNewPrivs, "1")
  assert_works(relay, directory, token)
end

function T.test_another_user_has_low_ports()
  need_root()
  local port = real.free_port(300, 1000)
  local relay = h.start_relay({ "--user", "nobody", "--ports",
    ("%d-%d"):format(port, port), port = real.free_port(300, 1000) })
  local agent = h.start_echoserver(relay, { "--port", port })
  lu.assertEquals(agent.port, port)
  h.echo(agent, 1000)
end

local function fails(options, words, status)
  local result = h.run(options)
  lu.assertEquals({ result.status, result.stdout }, { status or 1, "" })
  lu.assertStrContains(result.stderr, words)
end

function T.test_users_that_cannot_be()
  need_root()
  local relay = h.program("relay")
  fails({ relay, "0", "--user", "nosuchuser" },
    "relay: --user nosuchuser: there is no user 'nosuchuser'\n")
  fails({ relay, "0", "--user", "nobody:nosuchgroup" },
    "there is no group 'nosuchgroup'\n")
  fails({ relay, "0", "--user", "root" }, "that is root\n")
  fails({ relay, "0", "--user", "54321" }, "say 54321:GROUP\n")
  fails({ relay, "0", "--user", "nobody", user = "nobody" },
    "relay: --user nobody: only root can become another user\n")
  local directory = h.tmpdir() .. "/state"
  h.output_of({ "mkdir", directory })
  h.output_of({ "chmod", "755", directory, directory:match("^(.*)/") })
  fails({ relay, "0", "--user", "nobody", "--state", directory },
    "relay: --state: " .. directory .. " cannot be written: permission denied")
  fails({ relay, "0", "--user", "nobody", "--tokens", h.trust().path },
    "permission denied")
end

-- ---- what a script needs ----------------------------------------------------

local function needs(script, name)
  local path = policy.write(script, name)
  local lines = printed("--script", path)
  local at = path:gsub("%p", "%%%0") .. ":"
  return (lines["connections out"]:gsub(at, "")),
    (lines["any file"]:gsub(at, ""))
end

function T.test_what_a_script_is_seen_to_need()
  need_sandbox()
  local directory = h.tmpdir()
  h.write_file(directory .. "/plain.lua", "return 'relay.tcp, io' -- io")
  h.write_file(directory .. "/deep.lua", "return function()\n" ..
    "return require('relay').resolve('x') end")
  local name = directory .. "/policy.lua"
  for script, needed in pairs({
    ["return {}"] = { "no", "no" },
    ["-- relay.tcp\n--[[ io.open\nio ]] return { options = {} }"] =
      { "no", "no" },
    ["local s = 'io relay.tcp \\' require' return {}"] = { "no", "no" },
    ["local t = [==[ io ]] relay.tcp ]==] return {}"] = { "no", "no" },
    ["table.remove({}) local d = os.date() return {}"] = { "no", "no" },
    ["\nlocal t = relay.tcp return {}"] = { "yes: 2: tcp", "no" },
    ["local t = relay['resolve'] return {}"] = { "yes: 1: resolve", "no" },
    ["local f = function() return io.open('x') end return {}"] =
      { "no", "yes: 1: io" },
    ["local f = os.rename return {}"] = { "no", "yes: 1: os.rename" },
    ["require 'plain' return {}"] = { "no", "no" },
    ["local f = require('deep') return {}"] =
      { "yes: " .. directory .. "/deep.lua:2: resolve", "no" },
    ["pcall(require, 'nosuchmodule') return {}"] = { "no", "no" },
    ["local f = function(x) return require(x) end return {}"] =
      { "yes: 1: require of a name that is made",
        "yes: 1: require of a name that is made" },
    ["local f = function(x) return load(x) end return {}"] =
      { "yes: 1: load", "yes: 1: load" },
    ["local f = function() return require 'socket.core' end return {}"] =
      { "yes: 1: require socket.core", "no" },
  }) do
    lu.assertEquals({ script, needs(script, name) },
      { script, table.unpack(needed) })
  end
end

function T.test_what_a_script_says_counts_instead()
  need_sandbox()
  local directory = h.tmpdir()
  local path = policy.write("local a, b = relay.tcp, io return { options = " ..
    "{ allow = 'read=" .. directory .. "' } }")
  local lines, text = printed("--script", path)
  lu.assertEquals(lines["connections out"], "no")
  lu.assertEquals(lines["any file"], "no")
  lu.assertStrContains(text, ("\nread: %s (--allow read)\n"):format(directory))
  lines = printed("--script", path, "--allow", "connect")
  lu.assertEquals(lines["connections out"], "yes: --allow connect")
  lines = printed("--script", path, "--unsafe", "--allow=nothing")
  lu.assertEquals(lines["other programs"], "no")
end

function T.test_what_is_allowed_is_what_there_is()
  need_sandbox()
  local directory = h.tmpdir()
  h.output_of({ "mkdir", directory .. "/in", directory .. "/out" })
  h.write_file(directory .. "/in/file", "inside")
  local allow = ("read=%s/in,write=%s/out"):format(directory, directory)
  local log = policy.run(([[
    local d = %q
    print("in", io.open(d .. "/in/file"):read("a"))
    print("write in", select(2, io.open(d .. "/in/file", "w")))
    local file = assert(io.open(d .. "/out/a", "w"))
    file:write("x") file:close()
    assert(os.rename(d .. "/out/a", d .. "/out/b"))
    print("beside", select(2, io.open(d .. "/c", "w")))
    print("connect", relay.tcp():connect("127.0.0.1", 9))
    print("resolve", relay.resolve("nosuchhost.invalid"))
    print("by name", relay.tcp():connect("nosuchhost.invalid", 9))
    print("toip", require("socket.core").dns.toip("nosuchhost.invalid"))]])
    :format(directory), { "--allow", allow })
  lu.assertStrContains(log, "info in inside\n")
  lu.assertStrMatches(log, ".*info write in [^\n]*: Permission denied .*")
  lu.assertStrMatches(log, ".*info beside [^\n]*: Permission denied .*")
  for _, what in ipairs { "connect", "resolve", "by name", "toip" } do
    lu.assertStrContains(log, "info " .. what ..
      " nil this process has given up connections out\n")
  end
  lu.assertEquals(h.read_file(directory .. "/out/b"), "x")
end

-- A filter cannot be widened: what comes later is warned of.
function T.test_a_reload_cannot_widen_it()
  need_sandbox()
  local relay = policy.relay("return {}")
  policy.reload(relay, [[return { start = function()
    print(relay.tcp():connect("127.0.0.1", 9)) end }]])
  relay:wait_log("warn policy needs what this process has given up: only a " ..
    "restart lets it have that what=\"connections out\" reason=\"[^\n]*tcp\"")
  relay:wait_log("info nil this process has given up connections out")
end

function T.test_names_are_looked_up_in_it()
  need_sandbox()
  lu.assertStrMatches(policy.run(
    "print('found', relay.resolve('localhost')[1])"),
    ".*info found [%x.:]+\n.*")
end

function T.test_unsafe_lets_other_programs_run()
  local lines = printed("--script", policy.write("return {}"), "--unsafe")
  if lines.seccomp == "yes" then
    lu.assertEquals({ lines["connections out"], lines["other programs"],
      lines["any file"], lines["no new privileges"] },
      { "yes: --unsafe", "yes: --unsafe", "yes: --unsafe", "yes" })
  end
  lu.assertStrContains(policy.run("print(io.popen('echo popen'):read('l'))",
    { "--unsafe" }), "info popen\n")
  lu.assertStrContains(policy.run("print(os.execute('true'))",
    { "--unsafe", "--allow", "nothing" }), "info nil")
end

-- ---- what is said -----------------------------------------------------------

function T.test_what_is_printed_is_in_force()
  local relay = h.start_relay()
  local lines, text = printed()
  local status = status_of(relay)
  lu.assertEquals(lines.user, status.Uid:match("%d+"))
  lu.assertEquals(lines.group, status.Gid:match("%d+"))
  lu.assertEquals(lines["no new privileges"] == "yes",
    status.NoNewPrivs == "1")
  lu.assertEquals(lines.seccomp == "yes", status.Seccomp == "2")
  local set = 0
  for word in lines.capabilities:gmatch("%S+") do
    set = set | (({ net_bind_service = 1 << 10, dac_override = 1 << 1,
      sys_resource = 1 << 24, none = 0 })[word])
  end
  lu.assertEquals(set, tonumber(status.CapEff, 16), text)
  local limits = h.read_file(("/proc/%d/limits"):format(relay:pid()))
  lu.assertEquals(lines.descriptors,
    limits:match("Max open files%s+(%d+)%s+%1%s"))
  lu.assertEquals(lines["core dumps"], "no")
  lu.assertStrMatches(limits, ".*Max core file size%s+0%s+0%s.*")
end

function T.test_off_is_off()
  local relay = h.start_relay({ "--sandbox", "off" })
  local lines = printed("--sandbox", "off")
  local status = status_of(relay)
  lu.assertEquals({ lines.sandbox, lines["no new privileges"] },
    { "off", "no" })
  lu.assertEquals({ status.NoNewPrivs, status.Seccomp }, { "0", "0" })
end

function T.test_wrong_words()
  local relay = h.program("relay")
  for _, words in ipairs({ "everything", "connect,", "read=", "connect,write",
      "" }) do
    fails({ relay, "0", "--allow=" .. words }, "relay: --allow: ", 2)
  end
  local path = policy.write("return { options = { user = 'nobody' } }")
  fails({ relay, "0", "--script", path },
    "option 'user' is for the command line\n")
  fails({ relay, "0", "--script",
    policy.write("return { options = { allow = 'all' } }") },
    "relay: --allow: 'all' is not nothing, connect, exec, files", 2)
end

return T
