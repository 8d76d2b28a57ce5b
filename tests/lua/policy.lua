-- SPDX-License-Identifier: MIT
--
-- Relays with a policy script, for the tests of policies.

local h = require("harness")

local policy = {}

-- Writes the script; its path. Every script has `relay` and `log` at hand.
function policy.write(script, path)
  path = path or h.tmpdir() .. "/policy.lua"
  return h.write_file(path, 'local relay = require "relay" ' .. script)
end

-- A relay with the script, and as start_relay otherwise.
function policy.relay(script, options)
  options = options or {}
  local path = policy.write(script)
  table.insert(options, "--script")
  table.insert(options, path)
  local relay = h.start_relay(options)
  relay.script = path
  return relay
end

-- A relay with the script, and an echo server on it.
function policy.scene(script, options)
  local relay = policy.relay(script, options)
  return relay, h.start_echoserver(relay)
end

-- As scene; but no connection of the agent's comes and goes by itself, so that
-- sockets can be counted.
function policy.still_scene(script, options)
  local relay = policy.relay(script, options)
  return relay, h.start_echoserver(relay, { "--pool", "0" })
end

-- How many sockets a relay has; not what it keeps for the next pair.
function policy.sockets(relay)
  local count = 0
  for _, fd in ipairs(select(2, relay:fds())) do
    count = count + (fd:find("socket:", 1, true) and 1 or 0)
  end
  return count
end

function policy.await_sockets(relay, count)
  h.wait_until(("%d sockets are left, not %d"):format(
    policy.sockets(relay), count), function()
    return policy.sockets(relay) == count
  end)
end

-- Runs the body in `start`, which must come to its end; what was logged.
function policy.run(body, options)
  local path = policy.write("return { start = function() " .. body ..
    "\nprint('ran to the end') end }")
  local command = { h.program("relay"), "0", "--check", "--script", path,
    table.unpack(options or {}) }
  command.env = options and options.env
  local result = h.run(command)
  if result.status ~= 0 or
    not result.stderr:find("info ran to the end\n", 1, true) then
    error("it did not run to the end: " .. result.stderr, 2)
  end
  return result.stderr
end

-- Writes another script over the relay's, and has it reloaded.
function policy.reload(relay, script, expect)
  local _, before = relay:log():gsub("policy n?o?t? ?reloaded", "")
  policy.write(script, relay.script)
  relay:kill("HUP")
  h.wait_until("the policy was reloaded, or not", function()
    local _, now = relay:log():gsub("policy n?o?t? ?reloaded", "")
    return now > before
  end)
  local last
  for line in relay:log():gmatch("[^\n]*policy n?o?t? ?reloaded[^\n]*") do
    last = line
  end
  local ok = last:find("policy reloaded", 1, true) ~= nil
  if ok ~= (expect ~= false) then
    error("the reload went otherwise: " .. last, 2)
  end
  return last
end

-- How often the log holds a text.
function policy.count(relay, text)
  local _, count = relay:log():gsub(text:gsub("%p", "%%%0"), "")
  return count
end

-- A visitor's words and what comes back: text, and "" or "reset".
function policy.ask(agent, text)
  local visitor, why = h.sys.connect("127.0.0.1", agent.port)
  if not visitor then
    return "", why
  end
  visitor:send(text or "hello")
  visitor:shutdown()
  local got, how = visitor:recv_all()
  visitor:close()
  return got, how
end

return policy
