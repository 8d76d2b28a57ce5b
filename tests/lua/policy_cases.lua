-- SPDX-License-Identifier: MIT
--
-- What policies must do, said once for two: relay.testing and the engine of
-- the relay (tests/engine/). A case is a function; `play` makes all of them
-- for one of the two.

local lu = require("luaunit")

local cases = {}

local STRESSED <const> = (os.getenv("RELAY_TEST_STRESSED") or "") ~= ""
local FAILED = "a policy hook failed or took too long"

-- What a case is made of: `load` takes the text of a script; `clean` cuts the
-- folder out of texts.
local function make_scene(T, directory)
  local scene = { T = T, path = directory .. "/policy.lua" }
  function scene.write(script)
    local file = assert(io.open(scene.path, "wb"))
    file:write('local relay = require "relay" ', script)
    file:close()
  end
  function scene.load(script, options)
    scene.write(script)
    return T.load(scene.path, options)
  end
  function scene.clean(text)
    text = text:gsub(directory:gsub("%p", "%%%0") .. "/", "")
    if STRESSED then -- where the collector's time is allowed for
      text = text:gsub("more than 220 ms of CPU", "more than 20 ms of CPU")
    end
    return text
  end
  -- Verdicts as they are compared.
  function scene.plain(verdict)
    local copy = {}
    for key, value in pairs(verdict) do
      copy[key] = type(value) == "string" and scene.clean(value) or value
    end
    return copy
  end
  -- The messages logged: "level msg", or what failed.
  function scene.told(w)
    local lines = {}
    for _, record in ipairs(w.logs) do
      local error = record.fields and record.fields.error
      table.insert(lines, record.line and "line " .. record.line
        or error and ("%s: %s"):format(record.fields.hook, scene.clean(error))
        or ("%s %s"):format(record.level, scene.clean(record.msg)))
    end
    return lines
  end
  return scene
end

-- ---- each hook, and what it may return --------------------------------------

local function failed(text)
  return { deny = true, reason = FAILED, error = "policy.lua:1: " .. text }
end

-- As failed, of what was returned: there is no line to name.
local function wrong(text)
  return { deny = true, reason = FAILED, error = text }
end

local PARAMETERS = { auth = "agent, cred", allocate = "agent, want",
                     visitor = "conn, agents", peek = "conn, bytes" }
local LONG = { auth = 5, allocate = 5, visitor = 2, peek = 2 }
local late = { deny = true, reason = FAILED, error = "it waited too long" }

-- Hook, body, verdict. A body that waits has "sleep" in it.
local VERDICTS = {
  { "auth", "return true", { allow = true } },
  { "auth", "return true, 'owner'", { allow = true, name = "owner" } },
  { "auth", "return true, nil", { allow = true } },
  { "auth", "return true, ('n'):rep(200)",
    { allow = true, name = ("n"):rep(127) } },
  { "auth", "", { deny = true, reason = "auth returned nothing" } },
  { "auth", "return nil", { deny = true, reason = "auth returned nothing" } },
  { "auth", "return false", { deny = true } },
  { "auth", "return false, 'no'", { deny = true, reason = "no" } },
  { "auth", "return false, ('r'):rep(300)",
    { deny = true, reason = ("r"):rep(255) } },
  { "auth", "return false, 5",
    wrong("auth returned false and a number; the reason is a string") },
  { "auth", "return true, 5",
    wrong("auth returned true and no string; the name is a string") },
  { "auth", "return 1", wrong("auth returned a number; it may return true, " ..
    "a name; or false, a reason") },
  { "auth", "return 'x'", wrong("auth returned a string; it may return true," ..
    " a name; or false, a reason") },
  { "auth", "return agent", wrong("auth returned a userdata; it may return " ..
    "true, a name; or false, a reason") },
  { "auth", "error('boom')", failed("boom") },
  { "auth", "relay.sleep(1) return true, 'late'",
    { allow = true, name = "late" } },
  { "auth", "relay.sleep(60) return true", late },
  { "auth", "return cred.id == 'me', cred.id",
    { allow = true, name = "me" } },
  { "auth", "return cred.kind == 'token', cred.certificate",
    { allow = true, name = "box" } },
  { "auth", "agent:close('shut') return true",
    { deny = true, reason = "shut" } },
  { "auth", "relay.sleep(1) agent:close() relay.sleep(1) return true",
    { deny = true, reason = "closed by policy" } },
  { "auth", "agent:close('shut') error('boom')",
    { deny = true, reason = "shut" } },

  { "allocate", "", { allow = true } },
  { "allocate", "return true", { allow = true } },
  { "allocate", "return 9000", { port = 9000 } },
  { "allocate", "return 9000.0", { port = 9000 } },
  { "allocate", "return want.port", { port = 8123 } },
  { "allocate", "return { port = 9000 }", { port = 9000 } },
  { "allocate", "return {}", { allow = true } },
  { "allocate", "return { host = 'h.example' }",
    { allow = true, host = "h.example" } },
  { "allocate", "return { port = 443, host = 'h', share = true }",
    { port = 443, host = "h", share = true } },
  { "allocate", "return { port = 443, share = false }", { port = 443 } },
  { "allocate", "return false", { deny = true } },
  { "allocate", "return false, 'no room'",
    { deny = true, reason = "no room" } },
  { "allocate", "return false, {}",
    wrong("allocate returned false and a table; the reason is a string") },
  { "allocate", "return 0",
    wrong("allocate returned 0, which is not a port") },
  { "allocate", "return 70000",
    wrong("allocate returned 70000, which is not a port") },
  { "allocate", "return 1.5",
    wrong("allocate returned 1.5, which is not a port") },
  { "allocate", "return '80'", wrong("allocate returned a string; it may " ..
    "return a port, {port=, host=, share=}, nil or false") },
  { "allocate", "return agent", wrong("allocate returned a userdata; it may " ..
    "return a port, {port=, host=, share=}, nil or false") },
  { "allocate", "return { port = '80' }",
    wrong("allocate returned a table whose port is wrong") },
  { "allocate", "return { host = 5 }",
    wrong("allocate returned a table whose host is wrong") },
  { "allocate", "return { prot = 80 }", wrong("allocate returned a table " ..
    "with the key 'prot' (did you mean 'port'?)") },
  { "allocate", "return { 80 }",
    wrong("allocate returned a table with the key '?'") },
  { "allocate", "error(5)", wrong("5") },
  { "allocate", "relay.sleep(2) return 9000", { port = 9000 } },
  { "allocate", "relay.sleep(60) return 9000", late },
  { "allocate", "agent:close('away') return 9000",
    { deny = true, reason = "away" } },

  { "visitor", "", { allow = true } },
  { "visitor", "return nil", { allow = true } },
  { "visitor", "return true", { allow = true } },
  { "visitor", "return agents[1]", { agent = 1 } },
  { "visitor", "return agents[2]", { agent = 2 } },
  { "visitor", "return agents[3]", { allow = true } },
  { "visitor", "return false", { deny = true } },
  { "visitor", "return false, 'go away'",
    { deny = true, reason = "go away" } },
  { "visitor", "return false, 'a\\0b'", { deny = true, reason = "a" } },
  { "visitor", "return false, {}",
    wrong("visitor returned false and a table; the reason is a string") },
  { "visitor", "return false, 5",
    wrong("visitor returned false and a number; the reason is a string") },
  { "visitor", "return 1", wrong("visitor returned a number; it may return " ..
    "an agent, nil, true or false") },
  { "visitor", "return 'x'", wrong("visitor returned a string; it may " ..
    "return an agent, nil, true or false") },
  { "visitor", "return {}", wrong("visitor returned a table; it may return " ..
    "an agent, nil, true or false") },
  { "visitor", "return conn", wrong("visitor returned a userdata; it may " ..
    "return an agent, nil, true or false") },
  { "visitor", "return print", wrong("visitor returned a function; it may " ..
    "return an agent, nil, true or false") },
  { "visitor", "error('boom')", failed("boom") },
  { "visitor", "error('boom', 0)", wrong("boom") },
  { "visitor", "error()", wrong("nil") },
  { "visitor", "coroutine.yield(5)", failed("a hook cannot yield") },
  { "visitor", "relay.sleep(0) return agents[2]", { agent = 2 } },
  { "visitor", "relay.sleep(1) return false, 'later'",
    { deny = true, reason = "later" } },
  { "visitor", "relay.sleep(1) return {}", wrong("visitor returned a table;" ..
    " it may return an agent, nil, true or false") },
  { "visitor", "relay.sleep(1) error('boom')", failed("boom") },
  { "visitor", "relay.sleep(60)", late },
  { "visitor", "conn:close('out') return true",
    { deny = true, reason = "out" } },
  { "visitor", "conn:close('out') relay.sleep(60)",
    { deny = true, reason = "out" } },
  { "visitor", "relay.sleep(1) conn:close()",
    { deny = true, reason = "closed by policy" } },
  { "visitor", "while true do end", failed("it took more than 20 ms of CPU " ..
    "time") },
  { "visitor", "while true do pcall(error) end",
    failed("it took more than 20 ms of CPU time") },

  { "peek", "", { allow = true } },
  { "peek", "return true", { allow = true } },
  { "peek", "return #bytes + 1", { need = 6 } },
  { "peek", "return 4096", { need = 4096 } },
  { "peek", "return 6.0", { need = 6 } },
  { "peek", "return false, 'ugly'", { deny = true, reason = "ugly" } },
  { "peek", "return relay.agents()[1]", { agent = 1 } },
  { "peek", "return bytes == 'hello' and not conn.eof", { allow = true } },
  { "peek", "return 5",
    wrong("peek needs 5 bytes, and was shown 5 of at most 4096") },
  { "peek", "return 4097",
    wrong("peek needs 4097 bytes, and was shown 5 of at most 4096") },
  { "peek", "return 6.5",
    wrong("peek needs 6.5 bytes, and was shown 5 of at most 4096") },
  { "peek", "return 'x'", wrong("peek returned a string; it may return an " ..
    "agent, nil, true, false or a number of bytes") },
  { "peek", "return conn", wrong("peek returned a userdata; it may return " ..
    "an agent, nil, true, false or a number of bytes") },
  { "peek", "error('boom')", failed("boom") },
  { "peek", "relay.sleep(1) return false, 'ugly'",
    { deny = true, reason = "ugly" } },
  { "peek", "relay.sleep(1) return 8", { need = 8 } },
  { "peek", "relay.sleep(60)", late },
  { "peek", "conn:close('out')", { deny = true, reason = "out" } },
}

local function call_with_all(T, w, hook, agents)
  if hook == "auth" then
    return w.call("auth", agents[1], { id = "me", certificate = "box" })
  elseif hook == "allocate" then
    return w.call("allocate", agents[1], { port = 8123, host = "dialed" })
  elseif hook == "visitor" then
    return w.call("visitor", T.conn(), agents)
  end
  local conn = T.conn()
  w.call("visitor", conn, agents)
  return w.call("peek", conn, "hello")
end

local function verdict_case(hook, body, expect)
  return function(scene)
    local T = scene.T
    local w = scene.load(("return { %s = function(%s) %s end }"):format(
      hook, PARAMETERS[hook], body))
    local agents = { T.agent { name = "one" }, T.agent { name = "two" } }
    local verdict = call_with_all(T, w, hook, agents)
    if body:find("sleep", 1, true) and not body:find("^conn:close") then
      lu.assertTrue(verdict.pending)
      w.advance(LONG[hook])
    end
    local wanted = scene.plain(expect)
    wanted.agent = agents[expect.agent]
    lu.assertEquals(scene.plain(verdict), wanted)
    if expect.error and expect.error ~= "it waited too long" then
      lu.assertEquals(scene.told(w), { hook .. ": " .. expect.error })
    else
      lu.assertEquals(scene.told(w), {})
    end
  end
end

for _, row in ipairs(VERDICTS) do
  cases[row[1] .. ": " .. row[2]] = verdict_case(row[1], row[2], row[3])
end

cases["no hooks"] = function(scene)
  local T = scene.T
  local w = scene.load("return {}")
  local agents = { T.agent() }
  lu.assertEquals(w.hooks, {})
  for hook in pairs(PARAMETERS) do
    lu.assertEquals(call_with_all(T, w, hook, agents), { allow = true })
  end
  local conn = T.conn()
  w.call("visitor", conn, agents)
  lu.assertEquals(w.call("open", conn), {})
  lu.assertEquals(w.call("close", conn), {})
  lu.assertEquals(w.call("agent_gone", agents[1]), {})
  w.advance(3)
  lu.assertEquals(w.stop(), {})
  lu.assertEquals(w.logs, {})
end

-- ---- the cases of all files, for one of the two -----------------------------

-- A table of functions by name. What each file adds is in the same form.
function cases.play(T, directory)
  local all = {}
  for _, file in ipairs({ "policy_cases", "policy_cases_api",
                          "policy_cases_data", "policy_cases_life",
                          "policy_cases_time" }) do
    for name, case in pairs(require(file)) do
      if name ~= "play" then
        all[name] = function()
          case(make_scene(T, directory))
        end
      end
    end
  end
  return all
end

return cases
