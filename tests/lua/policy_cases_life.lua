-- SPDX-License-Identifier: MIT
--
-- Cases (see policy_cases.lua) of a script's life: loading, start, save, stop,
-- reload; and its log.

local lu = require("luaunit")

local cases = {}

-- ---- loading ----------------------------------------------------------------

-- Scripts that are refused, and why.
local REFUSED = {
  ["return {\n visitr = function() end }"] =
    "policy.lua:2: unknown hook 'visitr' (did you mean 'visitor'?)",
  ["return {\n\n optoins = {} }"] =
    "policy.lua:3: unknown hook 'optoins' (did you mean 'options'?)",
  ["local visitr = 1 return {\n -- visitr\n ['visitr'] = print }"] =
    "policy.lua:3: unknown hook 'visitr' (did you mean 'visitor'?)",
  ["local t = {} t['zzz'] = 1 return t"] = "policy.lua:1: unknown hook 'zzz'",
  ["local k = 'zz' .. 'z' return { [k] = 1 }"] =
    "policy.lua: unknown hook 'zzz'",
  ["return {\n visitor = 5 }"] =
    "policy.lua:2: 'visitor' must be a function, not a number",
  ["return { print }"] = "policy.lua: it must return a table of hooks by " ..
    "name; this one has the key 1",
  ["return"] = "policy.lua: it must return a table of hooks, not a nil",
  ["return 5"] = "policy.lua: it must return a table of hooks, not a number",
  ["return {"] =
    "policy.lua:1: unexpected symbol near <eof>",
  ["x = 1"] =
    "policy.lua:1: assignment to undeclared variable 'x' (make it local)",
  ["return { close = x }"] = "policy.lua:1: undeclared variable 'x'",
  ["error('at load')"] = "policy.lua:1: at load",
  ["\n relay.slep(1)"] =
    "policy.lua:2: relay has no 'slep' (did you mean 'sleep'?)",
  ["relay.sleep(1)"] = "policy.lua:1: relay.sleep cannot wait here",
  ["relay.resolve('x')"] = "policy.lua:1: relay.resolve cannot wait here",
  ["coroutine.yield()"] =
    "policy.lua: attempt to yield from outside a coroutine",
  ["relay.agents()"] =
    "policy.lua:1: there is no relay yet, or no more",
  ["setmetatable({}, { __gc = print })"] =
    "policy.lua:1: a policy cannot have finalizers (__gc)",
  ["return { options = 5 }"] = "policy.lua:1: 'options' must be a table",
  ["return { options = { ports = { 1 } } }"] =
    "policy.lua: option 'ports' must be two whole numbers, { LOW, HIGH }",
  ["return { options = { idle = print } }"] =
    "policy.lua: option 'idle' must be a string, a number or a boolean",
  ["return { options = { 5 } }"] = "policy.lua: option '?' has no name",
  ["return { start = function() error('no luck') end }"] =
    "policy.lua:1: no luck",
  ["return { start = function() relay.stats() end }"] =
    "policy.lua:1: there is no relay yet, or no more",
  ["return { start = function() relay.sleep(60) end }"] =
    "policy.lua: start: it waited too long",
  ["return { start = function() coroutine.yield() end }"] =
    "policy.lua:1: a hook cannot yield",
  ["return { start = function() error() end }"] = "policy.lua: start: nil",
  ["return { start = function() relay.listen { port = 9 } end }"] =
    "policy.lua: relay.listen: port 9: address already in use",
}

for script, text in pairs(REFUSED) do
  cases["refused: " .. script:gsub("%s+", " ")] = function(scene)
    local ok, why = pcall(scene.load, script, { taken = { 9 } })
    lu.assertFalse(ok)
    lu.assertEquals(scene.clean(why), text)
  end
end

cases["no such file"] = function(scene)
  local ok, why = pcall(scene.T.load, "/no/such/file.lua")
  lu.assertEquals({ ok, why },
    { false, "/no/such/file.lua: No such file or directory" })
end

cases["a first line for the shell, hooks, options"] = function(scene)
  local file = assert(io.open(scene.path, "wb"))
  file:write("#!/usr/bin/relay\nreturn { options = { max_agents = 5, " ..
    "ports = { 1, 2 }, idle = 0.5, grace = 60.0, check = false, " ..
    "advertise = 'a.example' }, tick = print, auth = print }")
  file:close()
  local w = scene.T.load(scene.path)
  lu.assertEquals(w.hooks, { "auth", "tick" })
  lu.assertEquals(w.options, { ["max-agents"] = "5", ports = "1-2",
    idle = "0.5", grace = "60", check = "false", advertise = "a.example" })
end

-- What is left out, and what only looks the same.
cases["the sandbox"] = function(scene)
  local w = scene.load([[
    assert(os.exit == nil and os.execute == nil and io.popen == nil)
    assert(os.setlocale == nil and package.loadlib == nil or true)
    assert(os.time() and io.open and string.format and utf8.char)
    assert(debug.sethook == nil and debug.traceback())
    assert(not load(string.dump(function() end), "x", "b"))
    assert(load("return ...")(5) == 5)
    assert(load("return x", "x", "t", { x = 6 })() == 6)
    assert(require("relay") == relay and require("string") == string)
    assert(not pcall(require, "no.such.module"))
    assert(setmetatable({}, { __index = string }).rep == string.rep)
    assert(_G.undeclared == nil)
    _G.mine = 5
    assert(mine == 5)
    return {}]])
  lu.assertEquals(w.logs, {})
end

cases["modules beside the script are not strict"] = function(scene)
  local file = assert(io.open((scene.path:gsub("policy.lua", "mine.lua")),
    "wb"))
  file:write("answer = 42 return { n = answer, name = ... }")
  file:close()
  local w = scene.load([[local mine = require "mine"
    print(mine.n, mine.name, require "mine" == mine, answer) return {}]])
  lu.assertEquals(scene.told(w), { "info 42 mine true 42" })
end

-- ---- start, save, stop, reload ----------------------------------------------

cases["start and stop"] = function(scene)
  local w = scene.load([[return {
    start = function(prev) print("start", prev) relay.sleep(1.5)
      print("started") end,
    stop = function(why) print("stop", why) relay.sleep(1) print("end") end }]])
  lu.assertEquals(scene.told(w), { "info start nil", "info started" })
  lu.assertEquals(w.stop(), {})
  lu.assertEquals(#w.logs, 4)
  lu.assertEquals(scene.told(w)[4], "info end")
end

cases["stop that fails"] = function(scene)
  local w = scene.load("return { stop = function() error('in stop') end }")
  lu.assertEquals(scene.clean(w.stop().error), "policy.lua:1: in stop")
  lu.assertEquals(scene.told(w), { "stop: policy.lua:1: in stop" })
end

local COUNTER = [[local n = 0 return {
  start = function(prev) n = prev and prev.n + 100 or 0 end,
  save = function() relay.sleep(0.5) return { n = n, deep = { { "x" } } } end,
  stop = function(why) print("stop", why) end,
  visitor = function() n = n + 1 print(n) end }]]

cases["reload carries what save gave"] = function(scene)
  local w = scene.load(COUNTER)
  w.call("visitor", scene.T.conn(), {})
  lu.assertTrue(w.reload())
  w.call("visitor", scene.T.conn(), {})
  lu.assertEquals(scene.told(w), { "info 1", "info policy reloaded",
    "info stop reload", "info 102" })
end

-- A second script, why it is not taken, and the hook that said so.
local NOT_RELOADED = {
  ["return { visitr = print }"] =
    "policy.lua:1: unknown hook 'visitr' (did you mean 'visitor'?)",
  ["return { start = function() error('bad') end }"] = "policy.lua:1: bad",
  ["return { start = function() relay.sleep(60) end }"] = "it waited too long",
  ["return { options = { idle = 5 } }"] =
    "its options differ, and cannot change while the relay runs",
  ["return { start = function() relay.listen { port = 9 } end }"] =
    "policy.lua: relay.listen: port 9: address already in use",
}

for script, text in pairs(NOT_RELOADED) do
  cases["not reloaded: " .. script] = function(scene)
    local w = scene.load(COUNTER, { taken = { 9 } })
    scene.write(script)
    local ok, why = w.reload()
    lu.assertEquals({ ok, scene.clean(why) }, { nil, text })
    w.call("visitor", scene.T.conn(), {})
    lu.assertEquals(scene.told(w),
      { "error policy not reloaded", "info 1" })
    lu.assertEquals(scene.clean(w.logs[1].fields.reason), text)
  end
end

-- What `save` may not give.
local NOT_SAVED = {
  ["error('in save')"] = "policy.lua:1: in save",
  ["return 5"] = "save returned a number; it may return a plain table or nil",
  ["return { print }"] = "save returned a table with a function in it",
  ["return { a = { coroutine.create(print) } }"] =
    "save returned a table with a coroutine in it",
  ["return { [relay.cidr {}] = 1 }"] =
    "save returned a table with an object in it",
  ["local t = {} t.t = t return t"] =
    "save returned a table with tables within tables without end in it",
  ["return relay.agents()"] = "save returned a table with an object in it",
  ["relay.sleep(60)"] = "it waited too long",
}

for body, text in pairs(NOT_SAVED) do
  cases["not saved: " .. body] = function(scene)
    local w = scene.load("return { auth = function() return true end, " ..
      "save = function() " .. body .. " end }")
    w.call("auth", scene.T.agent())
    local ok, why = w.reload()
    lu.assertEquals({ ok, scene.clean(why) }, { nil, text })
    lu.assertEquals(w.logs[#w.logs].fields.hook, "save")
  end
end

cases["plain values survive"] = function(scene)
  local w = scene.load([[return {
    save = function() return { 1, 2.5, "s\0", true, [false] = "f",
      t = { { 1 } }, [2.5] = -1, n = math.mininteger } end,
    start = function(p) if p then
      print(math.type(p[1]), p[2], #p[3], p[4], p[false], p.t[1][1], p[2.5],
        p.n == math.mininteger) end end }]])
  lu.assertTrue(w.reload())
  lu.assertEquals(scene.told(w)[1], "info integer 2.5 2 true f 1 -1 true")
end

cases["a verdict comes from who began it"] = function(scene)
  local T = scene.T
  local w = scene.load("return { visitor = function() relay.sleep(1) " ..
    "return false, 'old' end }")
  local verdict = w.call("visitor", T.conn(), {})
  scene.write("return { visitor = function() return false, 'new' end }")
  lu.assertTrue(w.reload())
  lu.assertEquals(w.call("visitor", T.conn(), {}).reason, "new")
  lu.assertTrue(verdict.pending)
  w.advance(1)
  lu.assertEquals(verdict, { deny = true, reason = "old" })
end

cases["a reload keeps kv, not data"] = function(scene)
  local w = scene.load([[return {
    visitor = function(conn) conn.data = 1 relay.kv.incr("n") end,
    open = function(conn) print(conn.data, relay.kv.get("n"), conn.alive) end,
  }]])
  local conn = scene.T.conn()
  w.call("visitor", conn, {})
  w.call("open", conn)
  w.reload()
  w.call("open", conn)
  lu.assertEquals(scene.told(w), { "info 1 1 true", "info policy reloaded",
    "info nil 1 true" })
end

cases["a reload that the policy asks for"] = function(scene)
  local w = scene.load([[return {
    visitor = function() print(relay.reload()) end,
    stop = function(why) print(why) end }]])
  w.call("visitor", scene.T.conn(), {})
  w.advance(0.01)
  lu.assertEquals(scene.told(w), { "info true", "info policy reloaded",
    "info reload" })
end

cases["a reload within a reload"] = function(scene)
  local w = scene.load([[return {
    start = function(prev) if prev then print("start", relay.reload()) end end,
    save = function() print("save", relay.reload()) return {} end,
    stop = function(why)
      if why == "reload" then print("stop", relay.reload()) end end }]])
  lu.assertTrue(w.reload())
  local no = " nil a reload is under way"
  lu.assertEquals(scene.told(w), { "info save" .. no, "info start" .. no,
    "info policy reloaded", "info stop" .. no })
end

cases["one port on two hosts"] = function(scene)
  local w = scene.load([[return { start = function()
    relay.listen { port = 1, host = "127.0.0.1" }
    print(relay.listen { port = 1, host = "127.0.0.1" },
      relay.listen { port = 1 }) end }]])
  lu.assertEquals(scene.told(w), { "info true nil address already in use" })
  scene.write([[return { start = function()
    relay.listen { port = 1, host = "127.0.0.2" } end }]])
  local ok, why = w.reload()
  lu.assertNil(ok)
  lu.assertEquals(scene.clean(why),
    "policy.lua: relay.listen: port 1: address already in use")
end

cases["what comes during a reload waits for its end"] = function(scene)
  local T = scene.T
  local w = scene.load([[local n = 0 return {
    start = function(prev) n = prev and prev.n + 100 or 0 end,
    save = function() relay.sleep(1) return { n = n } end,
    tick = function() relay.reload() end,
    open = function() n = n + 1 end,
    visitor = function() n = n + 1 return false, tostring(n) end }]])
  w.call("tick")
  w.advance(0.5)
  local first = w.call("visitor", T.conn(), {})
  w.call("open", T.conn())
  local second = w.call("visitor", T.conn(), {})
  lu.assertTrue(first.pending and second.pending)
  w.advance(0.6)
  lu.assertEquals({ first.reason, second.reason }, { "101", "103" })
end

cases["shared ports over a reload"] = function(scene)
  local w = scene.load([[return { start = function()
    relay.listen { port = 1 } relay.listen { port = 2 } end }]])
  scene.write([[return { start = function()
    relay.listen { port = 2 } relay.listen { port = 3 } end }]])
  lu.assertTrue(w.reload())
  lu.assertEquals(w.listens, { { port = 2 }, { port = 3 } })
end

cases["an old policy's every ends, its waits go on"] = function(scene)
  local w = scene.load([[return { start = function()
    relay.every(1, function() print("every") end)
    relay.spawn(function() relay.sleep(3) print("spawned")
      relay.sleep(60) print("never") end) end }]])
  w.advance(1)
  scene.write("return {}")
  w.reload()
  w.advance(20)
  lu.assertEquals(scene.told(w), { "info every", "info policy reloaded",
    "info spawned" })
end

-- ---- the log ----------------------------------------------------------------

local LOGGER = [[return { log = function(event)
  if event.msg == "line" then return "<" .. event.level .. ">" end
  if event.msg == "drop" then return false end
  if event.msg == "true" then return true end
  if event.msg == "type" then return {} end
  if event.msg == "conn" then
    return event.conn .. event.fields.conn .. event.fields.k end
  if event.msg == "own" then print("not asked again") return false end
end }]]

cases["the log hook"] = function(scene)
  local w = scene.load(LOGGER)
  local function ask(msg, fields)
    return w.call("log", { level = "warn", msg = msg, fields = fields })
  end
  lu.assertEquals(ask("line"), { line = "<warn>" })
  lu.assertEquals(ask("drop"), { drop = true })
  lu.assertEquals(ask("true"), {})
  lu.assertEquals(ask("own"), { drop = true })
  lu.assertEquals(ask("conn", { conn = 7, k = "v" }), { line = "77v" })
  lu.assertEquals(ask("type"),
    { error = "log returned a table; it may return a string or false" })
  lu.assertEquals(scene.told(w), { "line <warn>", "warn true",
    "info not asked again", "line 77v",
    "log: log returned a table; it may return a string or false",
    "warn type" })
end

cases["the same failure is told once in ten seconds"] = function(scene)
  local T = scene.T
  local w = scene.load([[return { visitor = function(conn)
    error(conn.addr == "192.0.2.1" and "usual" or "other") end }]])
  for _ = 1, 20 do
    w.call("visitor", T.conn(), {})
  end
  w.call("visitor", T.conn { addr = "::1" }, {})
  w.advance(9.9)
  w.call("visitor", T.conn(), {})
  w.advance(0.2)
  w.call("visitor", T.conn(), {})
  w.call("visitor", T.conn(), {})
  lu.assertEquals(scene.told(w), { "visitor: policy.lua:2: usual",
    "visitor: policy.lua:2: other", "visitor: policy.lua:2: usual" })
  lu.assertNil(w.logs[1].fields.repeated)
  lu.assertEquals(w.logs[3].fields.repeated, 20)
  lu.assertStrContains(w.logs[1].fields.traceback, "policy.lua:2: in function")
end

cases["failures that all differ"] = function(scene)
  local w = scene.load([[local n = 0 return { visitor = function(conn)
    error("number " .. conn.port) end }]])
  local function fail(port)
    w.call("visitor", scene.T.conn { port = port }, {})
    w.advance(0.01)
  end
  for port = 1, 17 do
    fail(port)
  end
  fail(17)
  fail(1)
  lu.assertEquals(#w.logs, 18)
end

return cases
