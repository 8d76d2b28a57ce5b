-- SPDX-License-Identifier: MIT
--
-- What the documents show is true: every C program in them is built against
-- the library and run, the example session is typed as the README has it,
-- options that are shown exist, links lead somewhere, and the reference of the
-- headers is complete.
--
-- A C program is one or more blocks marked ```c, each after a line
-- <!-- program: NAME -->; blocks of the same name are one program. Ports that
-- stand in a program are replaced by free ones, nothing else is changed.

local lu = require("luaunit")
local h = require("harness")
local real = require("real")
local sys = h.sys

local T = { limit = 120, limits = { test_example_session = 300 } }

local DOCUMENTS = { "README.md", "CHANGELOG.md", "docs/api.md",
                    "docs/embedding.md", "docs/internals.md",
                    "docs/operations.md", "docs/protocol.md",
                    "docs/scripting.md", "docs/security.md" }

local function document(name)
  return h.read_file(h.source .. name)
end

-- ---- C programs ------------------------------------------------------------

-- All programs of all documents, by name; an error for a block without one.
local function programs()
  local found = {}
  for _, path in ipairs(DOCUMENTS) do
    local name, block
    for line in document(path):gmatch("([^\n]*)\n") do
      if block and line:find("^```") then
        found[name] = (found[name] or "") .. table.concat(block, "\n") .. "\n"
        name, block = nil, nil
      elseif block then
        table.insert(block, line)
      elseif line:find("^```c%s*$") then
        lu.assertNotNil(name, path .. ": a C block without a program's name")
        block = {}
      else
        name = line:match("^<!%-%- program: (%S+) %-%->$") or name
      end
    end
    lu.assertNil(block, path .. ": a block does not end")
  end
  return found
end

local cache = h.read_file(h.build .. "/CMakeCache.txt")
local HAS_LUA = cache:find("\nRELAY_WITH_LUA:[^=]*=[1OT][N\n]")
local LUA = os.execute("pkg-config --exists lua5.4") and "lua5.4" or "lua"

local function sanitizers()
  local which = cache:match("\nRELAY_SANITIZE:[^=]*=(%S+)")
  return which and "-fsanitize=" .. which or "-g"
end

-- Builds a program, its ports replaced as the table says; the path to it.
local function build(name, ports)
  h.need("cc", "pkg-config")
  local text = assert(programs()[name], "no program " .. name)
  for from, to in pairs(ports or {}) do
    local count
    text, count = text:gsub("%f[%d]" .. from .. "%f[%D]", tostring(to))
    lu.assertTrue(count > 0, name .. " has no " .. from)
  end
  local path = h.tmpdir() .. "/" .. name
  h.write_file(path .. ".c", text)
  local command = { "cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror",
    sanitizers(), "-I", h.source .. "core/include", "-o", path, path .. ".c",
    seconds = 60 }
  local packages = { "pkg-config", "--cflags", "--libs", "libuv", "openssl" }
  if text:find("<relay/lua.h>", 1, true) then
    table.insert(packages, LUA)
    for _, word in ipairs({ "-I", h.source .. "lua/include",
      h.build .. "/librelay_lua.a" }) do
      table.insert(command, word)
    end
  end
  table.insert(command, h.build .. "/librelay.a")
  for word in (h.output_of(packages) .. " -lm"):gmatch("%S+") do
    table.insert(command, word)
  end
  h.output_of(command)
  return path
end

-- Built, and started, with what it shall end with.
local function start(name, ports, expect)
  return h.start({ build(name, ports), name = name, expect = expect })
end

local drivers = {}

drivers["readme-relay"] = function()
  local port = real.free_port()
  local relay = start("readme-relay", { ["8080"] = port })
  real.await_port(relay, port)
  h.echo(h.start_echoserver(port), 100000)
end

drivers["readme-agent"] = function()
  local relay = h.start_relay()
  local service = sys.listen()
  start("readme-agent", { ["8080"] = relay.port, ["3000"] = service:port() })
  local port = relay:wait_log("address established [^\n]*port=(%d+)")
  local visitor, served = h.join({ port = math.tointeger(port) }, service)
  h.exchange(visitor, served, 100000)
end

drivers.relay = function()
  local port = real.free_port()
  local relay = start("relay", { ["8080"] = port }, 0)
  relay:wait_line("^agents connect to .*, port " .. port .. "$")
  h.echo(h.start_echoserver(port), 100000)
  relay:wait_log("visitor closed")
  relay:stop("INT")
  local second = sys.listen({ host = "::", port = port })
  local other = start("relay", { ["8080"] = port })
  lu.assertEquals({ other:wait() }, { "exit", 1 })
  lu.assertStrContains(other:log(), "cannot listen: address already in use")
  second:close()
end

drivers.agent = function()
  local relay = h.start_relay()
  local service = sys.listen()
  local agent = start("agent",
    { ["8080"] = relay.port, ["3000"] = service:port() })
  local port = agent:wait_line("^visit us at localhost:(%d+)$")
  local visitor, served = h.join({ port = math.tointeger(port) }, service,
    { from = "127.0.0.9" })
  lu.assertStrMatches(served:recv_line(),
    "PROXY TCP4 127.0.0.9 127.0.0.1 %d+ " .. port .. "\r")
  h.exchange(visitor, served, 1000)
  agent:wait_line("^127%.0%.0%.9:%d+: 1000 bytes in, 1000 out, no error$")
  relay:stop()
  lu.assertEquals({ agent:wait() }, { "exit", 0 })
  lu.assertStrContains(agent:log(), "relay lost")
end

drivers.policy = function()
  local port, web = real.free_port(), real.free_port()
  local relay = start("policy", { ["8080"] = port, ["8123"] = web })
  real.await_port(relay, port)
  local agent = h.start_echoserver(port, { "--name", "web" })
  lu.assertEquals({ agent.host, agent.port }, { "www.example.org", web })
  local other = h.start_echoserver(port)
  lu.assertEquals(other.port, port + 1)
  h.echo(agent, 1000)
  relay:wait_line("^127%.0%.0%.1: 1000 in, 1000 out, no error$")
  -- Denied so soon that connecting may already tell.
  local stranger, why = sys.connect("127.0.0.1", web, { from = "127.0.0.9" })
  if stranger then
    why = select(2, stranger:recv())
  end
  lu.assertEquals(why, "reset")
  local before = sys.now()
  h.echo(other, 1000000)
  lu.assertTrue(sys.now() - before > 0.5, "no faster than was allowed")
  local typed = h.connect(port)
  typed:send("RELAY/1 LISTEN\n")
  lu.assertStrContains(typed:recv_line(), "ERR code=denied final=yes")
end

drivers.lua = function()
  if not HAS_LUA then
    h.skip("built without Lua")
  end
  local port, web = real.free_port(), real.free_port()
  local relay = start("lua", { ["8080"] = port, ["8123"] = web }, 0)
  real.await_port(relay, port)
  local agent = h.start_echoserver(port, { "--name", "web" })
  lu.assertEquals(agent.port, web)
  h.echo(agent, 1000)
  relay:wait_log("info welcome 127.0.0.1")
  local stranger, why = sys.connect("127.0.0.1", web, { from = "127.0.0.9" })
  if stranger then
    why = select(2, stranger:recv())
  end
  lu.assertEquals(why, "reset")
  lu.assertEquals(h.start_echoserver(port).port, port + 1)
end

drivers.two = function()
  local two = start("two")
  lu.assertEquals({ two:wait() }, { "exit", 0 })
  lu.assertStrMatches(two:text(), "127.0.0.1:%d+\n127.0.0.1:%d+\n")
end

for name, drive in pairs(drivers) do
  T["test_program_" .. name:gsub("-", "_")] = drive
end

function T.test_every_program_has_its_test()
  for name in pairs(programs()) do
    lu.assertNotNil(drivers[name], name)
  end
end

-- ---- the example session ---------------------------------------------------

-- README's line is what the session itself says to type.
function T.test_example_session()
  h.need("nc")
  if h.sanitized then
    h.skip("the session is the same in every build")
  end
  local line = assert(document("README.md"):match("\n%$ (printf [^\n]*)\n"))
  local answer = document("README.md"):match("\n%$ printf [^\n]*\n([^\n]*\n)")
  local port = real.free_port()
  local session = h.start({ h.source .. "dev", "run", port })
  local told = session:wait_line("^    (printf .*)$", 240)
  session:wait_line("Ctrl%-C")
  local public = told:match("(%d+)$")
  lu.assertEquals(told, (line:gsub("8081$", public)))
  lu.assertEquals(h.output_of({ "sh", "-c", told }), answer)
  sys.kill(-session:pid(), "INT")
  lu.assertEquals({ session:wait() }, { "exit", 0 })
  h.wait_until("no process of the session is left", function()
    return not sys.kill(-session:pid(), 0)
  end)
end

-- ---- the text --------------------------------------------------------------

-- The lines of blocks that are not C and call one of the programs.
local function shown_calls(text)
  local calls = {}
  for kind, block in text:gmatch("\n```(%l*)\n(.-)\n```") do
    for line in (kind == "c" and "" or block):gmatch("[^\n]+") do
      local program, rest = line:match("^%$? ?b?u?i?l?d?/?(%l+)( .*)")
      table.insert(calls, { program, rest })
    end
  end
  return calls
end

function T.test_options_that_are_shown_exist()
  local help, seen = {}, 0
  for _, program in ipairs({ "relay", "expose", "echoserver" }) do
    help[program] = h.output_of({ h.program(program), "--help" })
  end
  for _, path in ipairs(DOCUMENTS) do
    for _, call in ipairs(shown_calls(document(path))) do
      for option in (help[call[1]] and call[2] or ""):gmatch("%-%-[%l-]+") do
        seen = seen + 1
        lu.assertStrContains(help[call[1]], "\n  " .. option .. " ")
      end
    end
  end
  lu.assertTrue(seen >= 4, seen)
end

local function anchors(text)
  local found = {}
  for title in text:gmatch("\n#+ ([^\n]+)") do
    local anchor = title:lower():gsub("[^%w _-]", ""):gsub(" ", "-")
    found[anchor] = true
  end
  return found
end

function T.test_links_lead_somewhere()
  for _, path in ipairs(DOCUMENTS) do
    local text = document(path)
    for target in text:gmatch("%]%(([^)]+)%)") do
      local file, anchor = target:match("^([^#]*)#?(.*)$")
      if not file:find("^https?:") then
        local where = file == "" and path
          or (path:match("^(.*/)") or "") .. file
        local handle = io.open(h.source .. where)
        lu.assertNotNil(handle, path .. " leads to " .. target)
        handle:close()
        if anchor ~= "" then
          lu.assertTrue(anchors(document(where))[anchor],
            path .. " leads to " .. target)
        end
      end
    end
  end
end

-- Every call, option and hook of the public headers is named in embedding.md.
function T.test_embedding_is_complete()
  local text = document("docs/embedding.md")
  local missing = {}
  local function must_have(name)
    if not text:find("%f[%w_]" .. name .. "%f[^%w_]") then
      table.insert(missing, name)
    end
  end
  for _, path in ipairs({ "core/include/relay/base.h",
    "core/include/relay/relay.h", "core/include/relay/agent.h",
    "lua/include/relay/lua.h" }) do
    local header = document(path)
    header = header:gsub("/%*.-%*/", ""):gsub("#define [^\n]*", "")
    for call in header:gmatch("RELAY_API [^;(]-([%w_]+)%(") do
      must_have(call)
    end
    for body in header:gmatch("struct relay_%w*_?options {(.-)\n}") do
      for field in body:gmatch("([%w_]+);") do
        must_have(field)
      end
      for callback in body:gmatch("%(%*([%w_]+)%)") do
        must_have(callback)
      end
    end
    for hook in (header:match("struct relay_policy {(.-)\n}") or "")
      :gmatch("%(%*([%w_]+)%)") do
      must_have(hook)
    end
  end
  lu.assertEquals(missing, {})
end

return T
