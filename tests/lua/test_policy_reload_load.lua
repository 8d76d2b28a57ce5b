-- SPDX-License-Identifier: MIT
--
-- Reload after reload, good scripts and bad ones, while many pairs move bytes
-- and visitors come to a shared port: nobody is cut off or refused, counters
-- that go from script to script are exact, and memory is what it was.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")

local T = { limit = 300 }

local RELOADS <const> = 100
local PAIRS <const> = 200
local WARM <const> = RELOADS // 5 -- reloads before memory is looked at
local LEAK <const> = 6 << 20 -- what each script holds would be more

-- It counts before it waits: what a hook does after, when another script has
-- taken over meanwhile, is done to what is no longer asked.
local GOOD <const> = [[
  local n = { now = 0, all = 0 }
  local held = ("x"):rep(512 << 10)
  return {
    start = function(prev)
      n = prev or n
      relay.listen { port = PORT }
      if VERSION % 3 == 0 then relay.sleep(0.02) end
    end,
    save = function()
      if VERSION % 5 == 0 then relay.sleep(0.02) end
      return n
    end,
    allocate = function() return { port = PORT, share = true } end,
    visitor = function(conn)
      n.now, n.all = n.now + 1, n.all + 1
      conn:tag("version", #held // #held * VERSION)
      if conn.id % 3 == 0 then relay.sleep(0.01) end
    end,
    close = function(conn)
      n.now = n.now - 1
      print("count", n.now, n.all)
      if conn.id % 4 == 0 then relay.sleep(0.01) end
    end,
  }]]

local BAD <const> = {
  "return {",
  "return { start = error }",
  "return { visitr = print }",
  "return { options = { max_agents = 3 } }",
  "return { start = function() while true do end end }",
  "return { start = function() relay.sleep(0.02) error('late') end }",
  "local t = {} for i = 1, 1e9 do t[i] = {} end",
  "return { start = function() relay.listen { port = TAKEN } end }",
  "local f <close> = setmetatable({}, { __close = error }) return {}",
}

-- What the script with this number is; every third is bad.
local function script_of(number, port, taken)
  local script = number % 3 == 2 and BAD[number // 3 % #BAD + 1] or GOOD
  return (script:gsub("%u%u%u%u+", { PORT = port, TAKEN = taken,
                                     VERSION = number })), script == GOOD
end

local function visit(port)
  lu.assertEquals({ policy.ask({ port = port }, "hello") }, { "hello", "eof" })
  return 1
end

-- Has the script reloaded; visitors come until that is done, and one after.
local function reload(relay, port, script, ok)
  local outcome = ok and "policy reloaded" or "policy not reloaded"
  local before, visits = policy.count(relay, outcome), 0
  policy.write(script, relay.script)
  relay:kill("HUP")
  h.wait_until(outcome .. ": " .. script, function()
    visits = visits + visit(port)
    return policy.count(relay, outcome) > before
  end)
  return visits + visit(port)
end

-- How many visitors were let in by the script of this number, of those that
-- have left.
local function count_of(relay, version)
  local _, count = relay:log():gsub("version=" .. version .. "\n", "")
  return count
end

function T.test_many()
  local port, taken = real.free_port(), assert(h.sys.listen({ host = "::" }))
  local relay = policy.relay((script_of(1, port)), { "--script-memory", "8M" })
  h.start_echoserver(relay)
  local stop = h.tmpdir() .. "/stop"
  local mover = h.start({ "lua5.4", h.source .. "tests/lua/mover.lua", port,
    PAIRS, stop, stdout = "pipe" })
  mover:wait_line("^moving$")
  local total, version, good, before = PAIRS, 1, 0, nil
  for number = 1, RELOADS do
    local script, ok = script_of(number, port, taken:port())
    local visits = count_of(relay, version)
    total = total + reload(relay, port, script, ok)
    version, good = ok and number or version, good + (ok and 1 or 0)
    h.wait_until("the script in force is " .. version, function()
      return count_of(relay, version) > (ok and 0 or visits)
    end)
    if number == WARM then
      before = relay:usage().rss
    end
  end
  h.write_file(stop, "")
  local moved = mover:wait_line("^moved (%d+) bytes$")
  lu.assertEquals({ mover:wait() }, { "exit", 0 })
  lu.assertTrue(tonumber(moved) > PAIRS * 8192 * RELOADS // 10, moved)
  relay:wait_log(("count 0 %d\n"):format(total), 20)
  lu.assertEquals({ policy.count(relay, "policy reloaded"),
    policy.count(relay, "policy not reloaded") }, { good, RELOADS - good })
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
  local leaked = relay:usage().rss - before
  lu.assertTrue(h.sanitized or leaked < LEAK, leaked)
  taken:close()
end

return T
