-- SPDX-License-Identifier: MIT
--
-- Scripts that are wrong: refused when they are loaded, with file and line; or
-- contained when they run, while others are served.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")

local T = { limit = 60 }

local function check(script, options)
  local path = policy.write(script)
  local command = { h.program("relay"), "--check", "--script", path }
  for _, option in ipairs(options or {}) do
    table.insert(command, option)
  end
  return h.run(command), path
end

-- ---- loading --------------------------------------------------------------

local refused = {
  ["return {\n visitr = function() end }"] =
    "policy.lua:2: unknown hook 'visitr' (did you mean 'visitor'?)",
  ["return {\n\n optoins = {} }"] =
    "policy.lua:3: unknown hook 'optoins' (did you mean 'options'?)",
  ["return { zzz = 1 }"] = "policy.lua:1: unknown hook 'zzz'",
  ["return {\n visitor = 5 }"] =
    "policy.lua:2: 'visitor' must be a function, not a number",
  ["return { function() end }"] = "a table of hooks by name",
  ["return"] = "it must return a table of hooks, not a nil",
  ["return 5"] = "it must return a table of hooks, not a number",
  ["return {"] = "policy.lua:1: ",
  ["x = 1"] = "policy.lua:1: assignment to undeclared variable 'x'",
  ["return { close = x }"] = "policy.lua:1: undeclared variable 'x'",
  ["error('at load')"] = "policy.lua:1: at load",
  ["error({})"] = "table",
  ["\n relay.slep(1)"] = "policy.lua:2: relay has no 'slep'",
  ["relay.sleep(1)"] = "relay.sleep cannot wait here",
  ["relay.resolve('x')"] = "relay.resolve cannot wait here",
  ["coroutine.yield()"] = "outside a coroutine",
  ["while true do end"] = "of CPU time",
  ["while true do pcall(function() while true do end end) end"] =
    "of CPU time",
  ["local s = 'x' while true do s = s .. s end"] = "not enough memory",
  ["local t = {} for i = 1, 1e9 do t[i] = {} end"] = "not enough memory",
  ["local function f() return f() + 1 end f()"] =
    "not enough memory",
  ["os.exit(3)"] = "a nil value (field 'exit')",
  ["os.execute('true')"] = "a nil value (field 'execute')",
  ["io.popen('true')"] = "a nil value (field 'popen')",
  ["debug.sethook()"] = "a nil value (field 'sethook')",
  ["package.loadlib('x', 'y')"] = "a nil value (field 'loadlib')",
  ["setmetatable({}, { __gc = function() end })"] = "finalizers (__gc)",
  ["assert(load(string.dump(function() end), 'x', 'b'))"] =
    "attempt to load a binary chunk",
  ["require 'no.such.module'"] = "module 'no.such.module' not found",
  ["relay.cidr { '10.0.0.0/40' }"] = "not an address or network",
  ["return { options = 5 }"] = "'options' must be a table",
  ["return { options = { ports = { 1 } } }"] = "option 'ports' must be two",
  ["return { options = { idle = print } }"] = "option 'idle' must be a string",
  ["return {\n options = {\n max_agent = 3 } }"] =
    "policy.lua:3: unknown option '--max-agent",
  ["return {\n options = { idle = 'soon' } }"] =
    "policy.lua:2: --idle: 'soon' is not a time",
  ["return {\n options = { ['idle'] = 'soon' } }"] =
    "policy.lua:2: --idle: 'soon' is not a time",
  ["local o = { ['id' .. 'le'] = 'x' } return { options = o }"] =
    "policy.lua: --idle: 'x' is not a time",
  ["return {\n options = { port = 70000 } }"] =
    "policy.lua:2: PORT: '70000' is not a port",
  ["return { start = function() relay.stats() end }"] =
    "there is no relay yet",
  ["return { start = function() while true do end end }"] = "of CPU time",
}

for script, words in pairs(refused) do
  T["test_refused: " .. script] = function()
    local result = check(script, { "--script-memory", "16M" })
    lu.assertEquals({ result.status, result.stdout }, { 1, "" })
    lu.assertStrContains(result.stderr, words)
  end
end

function T.test_a_bytecode_file_is_refused()
  local path = h.tmpdir() .. "/policy.lua"
  h.write_file(path, string.dump(function() return {} end))
  local result = h.run({ h.program("relay"), "--check", "--script", path })
  lu.assertEquals(result.status, 1)
  lu.assertStrContains(result.stderr, "attempt to load a binary chunk")
end

function T.test_a_script_of_17_megabytes_is_refused()
  local path = policy.write("return {} --" .. ("x"):rep(17 << 20))
  local result = h.run({ h.program("relay"), "0", "--script", path })
  lu.assertEquals({ result.status, result.stderr },
    { 1, ("relay: %s: File too large\n"):format(path) })
end

function T.test_no_such_file()
  local result = h.run({ h.program("relay"), "0", "--script", "/no/such" })
  lu.assertEquals({ result.status, result.stderr },
    { 1, "relay: /no/such: No such file or directory\n" })
end

function T.test_check()
  local result, path = check("return { visitor = print, start = " ..
    "function() print('x') end, stop = print }")
  lu.assertEquals({ result.status, result.stdout },
    { 0, path .. ": ok: start stop visitor\n" })
  result, path = check("return {}")
  lu.assertEquals({ result.status, result.stdout },
    { 0, path .. ": ok: no hooks\n" })
end

function T.test_check_lists_options_and_ports()
  local result, path = check("return { options = { ports = { 1, 2 }, " ..
    "max_agents = 5, port = 0 }, start = function() " ..
    "relay.listen { port = 443 } " ..
    "relay.listen { port = 80, host = '::1' } end }")
  lu.assertEquals({ result.status, result.stderr, result.stdout }, { 0, "",
    (path .. ": " .. table.concat({ "ok: start", "option max-agents = 5",
      "option port = 0", "option ports = 1-2", "listens on *:443",
      "listens on [::1]:80" }, "\n" .. path .. ": ") .. "\n") })
end

-- Whoever runs it sees at once what an editor can jump to.
function T.test_check_says_where()
  for _, command in ipairs({ { "--check" }, { "0" } }) do
    local path = policy.write("return {\n visitr = function() end }")
    table.insert(command, 1, h.program("relay"))
    local result = h.run({ command[1], command[2], "--script", path })
    lu.assertEquals({ result.status, result.stdout, result.stderr }, { 1, "",
      "relay: " .. path .. ":2: unknown hook 'visitr' (did you mean " ..
      "'visitor'?)\n" })
  end
end

function T.test_unsafe_opens_all()
  local result = check("os.execute('true') assert(load(string.dump(" ..
    "function() end))) debug.gethook() print('all') return {}", { "--unsafe" })
  lu.assertEquals(result.status, 0, result.stderr)
  lu.assertStrContains(result.stderr, "info all\n")
end

function T.test_modules_beside_the_script()
  local directory = h.tmpdir()
  h.write_file(directory .. "/mine.lua", "answer = 42 return { n = answer }")
  local path = policy.write("print(require 'mine'.n) return {}",
    directory .. "/policy.lua")
  local result = h.run({ h.program("relay"), "--check", "--script", path })
  lu.assertEquals(result.status, 0, result.stderr)
  lu.assertStrContains(result.stderr, "info 42\n")
end

-- ---- options --------------------------------------------------------------

function T.test_options_and_the_command_line()
  local relay = policy.relay("return { options = { ports = { 21000, 21099 }," ..
    " advertise = 'relay.example', log_level = 'error' } }",
    { "--log-level", "info" })
  local agent = h.start_echoserver(relay)
  lu.assertEquals(agent.host, "relay.example")
  lu.assertTrue(agent.port >= 21000 and agent.port <= 21099)
  relay:wait_log("info address established")
end

function T.test_port_of_the_script()
  local path = policy.write("return { options = { port = 0 } }")
  local relay = h.start({ h.program("relay"), "--script", path, expect = 0,
                          name = "relay" })
  relay:wait_line("^listening on (.*):(%d+)$")
  local result = h.run({ h.program("relay"), "--script",
                         policy.write("return {}") })
  lu.assertEquals(result.status, 2)
  lu.assertStrContains(result.stderr, "PORT is missing")
end

-- ---- running --------------------------------------------------------------

-- What a visitor hook does to the first visitor; the second is served at once.
local contained = {
  ["while true do end"] = "of CPU time",
  ["while true do pcall(function() while true do end end) end"] =
    "of CPU time",
  ["while true do pcall(error) end"] = "of CPU time",
  ["local f = coroutine.wrap(function() while true do end end) f()"] =
    "of CPU time",
  ["while true do coroutine.resume(coroutine.create(function()" ..
    " while true do end end)) end"] = "of CPU time",
  ["local s = 'x' while true do s = s .. s end"] = "not enough memory",
  -- Memory or time, whatever comes first.
  ["local t = {} while true do t[#t + 1] = ('x'):rep(1e6) end"] = "",
  ["local t = {} while true do t[#t + 1] = coroutine.create(print) end"] = "",
  ["local function f() return f() + 1 end f()"] =
    "not enough memory",
  ["local function f() return pcall(f) end f() error('out')"] = "out",
  ["error(setmetatable({}, { __tostring = function() error('deep') end }))"] =
    "",
  ["error(setmetatable({}, { __tostring = function() return 5 end }))"] = "",
  ["coroutine.yield(5)"] = "a hook cannot yield",
  ["table.sort({ 3, 2, 1 }, function() relay.sleep(1) end)"] =
    "relay.sleep cannot wait here",
  ["string.gsub('x', 'x', function() relay.sleep(1) end)"] =
    "relay.sleep cannot wait here",
  ["return conn.adr"] = "conn has no field 'adr' (did you mean 'addr'?)",
  ["conn.addr = 5"] = "conn.addr cannot be assigned",
  ["conn:limit { rate = 5 }"] = "unknown limit 'rate'",
  ["conn:limit { rate_in = 'x' }"] = "limit rate_in must be a number",
  ["conn:limit { rate_in = -1 }"] = "limit rate_in is out of range",
  ["conn:peek(1)"] = "the policy has no hook 'peek'",
  ["conn.close(5)"] = "bad argument #1",
  ["getmetatable(conn).x = 1"] = "index a string value",
  ["relay.sleep(-1)"] = "not a number of seconds",
  ["relay.kv.set('k', {})"] = "string or number expected",
  ["relay.kv.set('k', 'v') relay.kv.incr('k')"] = "'k' is a string",
  ["relay.listen { prot = 5 }"] = "did you mean 'port'?",
  ["relay.every(0, print)"] = "it cannot be 0",
  ["relay.spawn(5)"] = "function expected",
  ["local co = coroutine.create(relay.sleep) relay.spawn(function()" ..
    " coroutine.resume(co, 9) end) relay.sleep(0.05)" ..
    " assert(coroutine.resume(co))"] = "cannot resume a coroutine that waits",
  ["local x <close> = setmetatable({}, { __close = function()" ..
    " while true do end end })"] = "of CPU time",
}

local function serve_second(body)
  return policy.scene([[local n = 0
    return { visitor = function(conn, agents)
      n = n + 1
      if n > 1 then return end
      ]] .. body .. [[
      end }]], { "--script-memory", "8M" })
end

for body, words in pairs(contained) do
  T["test_contained: " .. body] = function()
    local relay, agent = serve_second(body)
    lu.assertEquals({ policy.ask(agent) }, { "", "reset" })
    lu.assertEquals(policy.ask(agent, "hello"), "hello")
    relay:wait_log("policy hook failed hook=visitor")
    lu.assertStrContains(relay:log(), words)
  end
end

function T.test_memory_for_many_and_back()
  local relay, agent = policy.scene([[local n = 0
    return { visitor = function()
      n = n + 1
      local t = {}
      for i = 1, 1e7 do t[i] = i end
    end }]], { "--script-memory", "4M" })
  for _ = 1, 30 do
    lu.assertEquals({ policy.ask(agent) }, { "", "reset" })
  end
  lu.assertStrContains(relay:log(), "not enough memory")
end

return T
