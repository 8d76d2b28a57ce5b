-- SPDX-License-Identifier: MIT
--
-- The ten minutes of docs/scripting.md, as a reader types them, and the pieces
-- of policies in it and in docs/api.md. How fences are marked: see pages.lua.

local lu = require("luaunit")
local certs = require("certs")
local h = require("harness")
local pages = require("pages")
local policy = require("policy")
local real = require("real")
local sys = h.sys

local T = { limit = 60 }

local languages = { policy = "lua", part = "lua", ["in"] = "lua",
                    console = "console", log = "console", drawing = "" }

function T.test_every_fence_is_marked()
  for _, path in ipairs(pages.list) do
    local seen = {}
    for _, one in ipairs(pages.fences_of(path)) do
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

-- ---- ten minutes ------------------------------------------------------------

-- Runs the session's first word from the build, as the page types it.
local function start(directory, name, what)
  local command, output = pages.session(name)
  local words = { expect = 0 }
  for word in pages.replaced(command, what):gmatch("%S+") do
    table.insert(words, word)
  end
  words.name = words[1]
  words[1] = h.output_of({ "realpath", h.program(words[1]) }):match("[^\n]+")
  words.cwd = directory
  local process = h.start(words)
  local line = process:wait_line("^(.+)$")
  lu.assertEquals(pages.plain(line), pages.plain(output:match("[^\n]*")))
  process.port = math.tointeger(line:match("(%d+)%)?$"))
  return process
end

local function edit(directory, from, to)
  local path = directory .. "/hello.lua"
  h.write_file(path, pages.replaced(h.read_file(path), { [from] = to }))
end

local function assert_session(name, directory, status, what)
  local command, output = pages.session(name)
  local result = pages.shell(directory, pages.replaced(command, what))
  lu.assertEquals({ result.stdout .. result.stderr, result.status },
    { output, status })
end

function T.test_ten_minutes()
  h.need("nc")
  local directory = h.tmpdir()
  h.write_file(directory .. "/hello.lua",
    pages.fence("policy", "hello.lua").text)
  assert_session("check", directory, 0)
  local relay = start(directory, "run-relay", { ["8080"] = real.free_port() })
  local agent = start(directory, "run-echo", { ["8080"] = relay.port })
  assert_session("run-visitor", directory, 0, { ["8081"] = agent.port })
  pages.expect_log(relay, "run")
  edit(directory, "hello", "welcome")
  assert_session("reload", directory, 0, { ["$(pidof relay)"] = relay:pid() })
  relay:wait_log("policy reloaded")
  lu.assertEquals(policy.ask(agent, "hi"), "hi")
  pages.expect_log(relay, "reload")
  edit(directory, "visitor", "visitr")
  assert_session("wrong", directory, 1)
  relay:kill("HUP")
  pages.expect_log(relay, "wrong")
  edit(directory, "visitr", "visitor")
  edit(directory, "conn.addr", "conn.adr")
  policy.count(relay, "policy reloaded")
  relay:kill("HUP")
  h.wait_until("the mistake is in force", function()
    return policy.count(relay, "policy reloaded") == 2
  end)
  lu.assertEquals({ policy.ask(agent, "hi") }, { "", "reset" })
  pages.expect_log(relay, "fails")
end

-- Which is the driver of the first policy; other files have those of others.
local drivers = { ["hello.lua"] = T.test_ten_minutes }

function T.test_every_policy_has_its_driver()
  local tests = ""
  for _, name in ipairs({ "recipes", "routes", "services" }) do
    tests = tests .. h.read_file(h.source .. "tests/lua/test_docs_" .. name ..
      ".lua")
  end
  for _, one in ipairs(pages.each_fence("policy")) do
    if not drivers[one.name] then
      lu.assertStrContains(tests, ('\ndrivers["%s"] = '):format(one.name))
    end
  end
end

-- ---- parts and fragments ----------------------------------------------------

local function assert_check(text, where)
  local result = h.run({ h.program("relay"), "--check", "--script",
                         policy.write(text) })
  lu.assertEquals(result.status, 0, where .. "\n" .. result.stderr)
end

function T.test_parts()
  local tokens = h.write_file(h.tmpdir() .. "/tokens", "")
  h.output_of({ "chmod", "600", tokens })
  local own = certs.authority()
  local files = { tokens = tokens, ["cert.pem"] = own.path,
    ["key.pem"] = own.key, ["agents.pem"] = own.path }
  for _, one in ipairs(pages.each_fence("part")) do
    local text = one.text:gsub("/etc/relay/([%l.]+)", files)
    assert_check("return {\n" .. text .. "}", one.where)
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

local function need_function(name)
  local result = h.run({ h.program("relay"), "--check", "--script",
    policy.write("local _ = relay." .. name .. " return {}") })
  if result.status ~= 0 then
    h.skip("this build has no relay." .. name)
  end
end

local function run_fragment(one)
  local hook = one.name
  lu.assertNotNil(arguments[hook], one.where .. ": no hook " .. hook)
  if one.needs then
    need_function(one.needs)
  end
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

-- ---- the reference ----------------------------------------------------------

-- Each heading of the reference is followed by an example.
function T.test_every_entry_has_an_example()
  local text = h.read_file(h.source .. "docs/api.md")
  local count = 0
  for entry in (text:gsub("\n###? ", "\0%0") .. "\0"):gmatch("[^\0]+") do
    if entry:find("^\n### ") then
      count = count + 1
      lu.assertStrContains(entry, "\n```lua\n")
    end
  end
  lu.assertTrue(count > 80, count)
end

function T.test_every_option_has_an_entry()
  local text = h.read_file(h.source .. "docs/api.md")
  local wanted, found = { port = true }, {}
  local help = h.output_of({ h.program("relay"), "--help" })
  for name in help:gmatch("\n  %-%-([%l-]+)") do
    wanted[name:gsub("-", "_")] = true
  end
  for _, name in ipairs({ "script", "check", "unsafe", "user", "print_sandbox",
      "help", "version" }) do
    wanted[name] = nil
  end
  for name in text:gmatch("\n### option ([%l_]+)\n") do
    found[name] = true
  end
  lu.assertEquals(found, wanted)
end

for _, path in ipairs(pages.list) do
  for _, one in ipairs(pages.fences_of(path)) do
    if one.kind == "in" then
      T["test_" .. one.where:gsub("%W", "_") .. "_in_" .. one.name] =
        function()
          run_fragment(one)
        end
    end
  end
end

return T
