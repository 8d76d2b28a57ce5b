-- SPDX-License-Identifier: MIT
--
-- Addresses that outlive the process: of a relay, which listens on them again
-- before it says so, and of an agent, which comes back with its ticket.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local stateful = require("stateful")
local typed = require("typed")
local sys = h.sys

local start, assert_echo = stateful.start, stateful.assert_echo

local T = { limit = 60, tearDown = typed.close_all }

-- The same again, on the same port.
local function again(relay, directory, options)
  options = options or {}
  options.port = relay.port
  return start(directory, options)
end

local function kept(directory)
  local files = {}
  for name in h.output_of({ "ls", directory }):gmatch("[^\n]+") do
    table.insert(files, name)
  end
  return files
end

local function with_ticket(relay, ticket)
  return typed.agent(relay, { words = "resume=" .. ticket })
end

-- ---- a relay ----------------------------------------------------------------

-- However it ends, its addresses are there when it says that it listens, and
-- whoever comes before the agent waits for it.
local function restart(signal)
  local directory = h.tmpdir() .. "/state"
  local relay = start(directory)
  local agent = h.start_echoserver(relay)
  local other = h.start_echoserver(relay, { "--name", "other" })
  lu.assertEquals(#kept(directory), 2)
  relay:kill(signal)
  relay:wait()
  lu.assertEquals(#kept(directory), 2)
  local fresh = again(relay, directory)
  for _, port in ipairs({ agent.port, other.port }) do
    assert_echo(port, "at once")
    fresh:wait_log("agent is back [^\n]*port=" .. port)
  end
  for _, each in ipairs({ agent, other }) do
    each:stop()
  end
  h.wait_until("what was given up is kept no more", function()
    return #kept(directory) == 0
  end)
end

for _, signal in ipairs({ "KILL", "TERM", "INT" }) do
  T["test_restart_after_" .. signal] = function()
    restart(signal)
  end
end

-- The ticket that counts is the one that was given last.
function T.test_tickets_go_on()
  local directory = h.tmpdir()
  local relay = start(directory)
  local agent = typed.agent(relay)
  local first = agent.resume
  agent.socket:close()
  agent = with_ticket(relay, first)
  local second, port = agent.resume, agent.ok.port
  agent:say("PING n=1")
  lu.assertEquals(agent:expect("PONG").n, "1")
  relay:kill("KILL")
  relay:wait()
  relay = again(relay, directory)
  lu.assertNotEquals(with_ticket(relay, first).ok.port, port)
  lu.assertEquals(with_ticket(relay, second).ok.port, port)
end

-- An agent that does not come back within the grace loses it for good.
function T.test_grace_after_a_restart()
  local directory = h.tmpdir()
  local relay = start(directory)
  local agent = typed.agent(relay)
  relay:kill("KILL")
  relay:wait()
  relay = again(relay, directory, { "--grace", "200ms" })
  relay:wait_log("address released port=" .. agent.ok.port)
  lu.assertEquals(kept(directory), {})
  relay:stop()
end

function T.test_a_port_that_was_taken_meanwhile()
  local directory = h.tmpdir()
  local relay = start(directory)
  local agent = typed.agent(relay)
  relay:kill("KILL")
  relay:wait()
  local thief = sys.listen({ host = "::", port = tonumber(agent.ok.port) })
  relay = again(relay, directory)
  relay:wait_log('lease not restored file=lease%-%x+ reason="[^\n]*in use"')
  lu.assertEquals(kept(directory), {})
  thief:close()
end

function T.test_one_relay_a_directory()
  local directory = h.tmpdir()
  start(directory)
  local result = h.run({ h.program("relay"), "0", "--state", directory })
  lu.assertEquals({ result.status, result.stdout }, { 1, "" })
  lu.assertStrContains(result.stderr, "state cannot be kept file=" ..
    directory .. ' reason="another relay uses this directory"')
  lu.assertStrContains(result.stderr, "\nrelay: --state: " .. directory ..
    " cannot be used: another relay has it\n")
end

function T.test_no_directory()
  local file = h.write_file(h.tmpdir() .. "/file", "")
  for path, reason in pairs({ [file] = "not a directory",
      [file .. "/none"] = "not a directory",
      [file .. "-none/none"] = "no such file or directory" }) do
    local result = h.run({ h.program("relay"), "0", "--state", path })
    lu.assertEquals(result.status, 1)
    lu.assertEquals(result.stderr, ("relay: --state: %s cannot be used: %s\n")
      :format(path, reason))
  end
end

-- Several agents behind a port that policy declares, and it at once again.
function T.test_shared_port()
  local directory = h.tmpdir()
  local port = real.free_port()
  local script = policy.write(([[return {
    start = function() relay.listen { host = "127.0.0.1", port = %d } end,
    allocate = function() return { port = %d, share = true } end }]]):format(
      port, port))
  local relay = start(directory, { "--script", script })
  local agents = { typed.agent(relay), typed.agent(relay) }
  lu.assertEquals(tonumber(agents[2].ok.port), port)
  relay:kill("KILL")
  relay:wait()
  relay = again(relay, directory, { "--script", script })
  for _, agent in ipairs(agents) do
    local back = with_ticket(relay, agent.resume)
    lu.assertEquals(tonumber(back.ok.port), port)
  end
  lu.assertEquals(policy.count(relay, "agent is back"), 2)
end

-- ---- an agent ---------------------------------------------------------------

function T.test_an_agent_with_state()
  local relay = h.start_relay()
  local file = h.tmpdir() .. "/ticket"
  local agent = h.start_echoserver(relay, { "--state", file })
  lu.assertEquals(h.output_of({ "stat", "-c", "%a", file }), "600\n")
  for _ = 1, 3 do
    agent:kill("KILL")
    agent:wait()
    local waiting = h.connect(agent.port)
    waiting:send("parked")
    local fresh = h.start_echoserver(relay, { "--state", file })
    lu.assertEquals(fresh.port, agent.port)
    lu.assertEquals(waiting:recv_exact(6), "parked")
    waiting:close()
    agent = fresh
  end
  lu.assertEquals(policy.count(relay, "address established"), 1)
end

return T
