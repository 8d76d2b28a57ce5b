-- SPDX-License-Identifier: MIT
--
-- The example policies for their tests: run as they stand in scripts/, or with
-- a few words of theirs changed (a port, a number), as their readers would.

local h = require("harness")
local policy = require("policy")
local real = require("real")
local sys = h.sys

local example = {}

function example.path(name)
  return h.source .. "scripts/" .. name .. ".lua"
end

-- A script's text with words changed: { ["PORT = 443"] = "PORT = 21443" }. Each
-- has to be there, once.
function example.text(name, changes)
  local text = h.read_file(example.path(name))
  for from, to in pairs(changes or {}) do
    local at, last = text:find(from, 1, true)
    if not at or text:find(from, last + 1, true) then
      error(("%s.lua does not have '%s' once"):format(name, from), 2)
    end
    text = text:sub(1, at - 1) .. to .. text:sub(last + 1)
  end
  return text
end

-- relay(NAME, {ARGUMENT, …, change={…}, env=, …}), else as start_relay. Its log
-- tells who served whom.
function example.relay(name, options)
  options = options or {}
  local path = example.path(name)
  if options.change then
    path = h.write_file(h.tmpdir() .. "/policy.lua",
      example.text(name, options.change))
    options.change = nil
  end
  for _, word in ipairs({ "--script", path, "--log-level", "debug" }) do
    table.insert(options, word)
  end
  local relay = h.start_relay(options)
  relay.script, relay.example = path, name
  return relay
end

-- A relay with a script that shares a port: that port is changed to a free one.
function example.shared(name, options)
  options = options or {}
  local port = real.free_port()
  local line = example.text(name):match("PORT = %d+")
  options.change = options.change or {}
  options.change[line] = "PORT = " .. port
  local relay = example.relay(name, options)
  relay.change, relay.shared_port = { [line] = "PORT = " .. port }, port
  return relay, port
end

-- Puts the script into force anew, with these changes.
function example.reload(relay, changes)
  local before = policy.count(relay, "policy reloaded")
  if changes then
    for from, to in pairs(relay.change or {}) do
      changes[from] = changes[from] or to
    end
    h.write_file(relay.script, example.text(relay.example, changes))
  end
  relay:kill("HUP")
  h.wait_until("the policy is reloaded", function()
    return policy.count(relay, "policy reloaded") > before
  end)
end

local function has_no_visitors(relay)
  local log = relay:log()
  for conn in log:gmatch("visitor joined conn=(%d+) ") do
    if not log:find("visitor closed conn=" .. conn .. " ", 1, true) then
      return false
    end
  end
  return true
end

-- Asserts that a table of the script, which `save` returns so, holds nothing
-- once all visitors have gone: the script is made to tell at a reload.
function example.assert_empty(relay, name, returned)
  local before = policy.count(relay, "left in it:")
  h.wait_until("all visitors have gone", function()
    return has_no_visitors(relay)
  end)
  example.reload(relay, { [returned] = ([[
    local count = 0
    for _ in pairs(%s) do count = count + 1 end
    print("left in it:", count)
    %s]]):format(name, returned) })
  example.reload(relay, {})
  if policy.count(relay, "left in it: 0\n") ~= before + 1 then
    error(name .. " is not empty", 2)
  end
end

-- An echo server of that name.
function example.agent(relay, name, options)
  options = options or {}
  table.insert(options, "--name")
  table.insert(options, name)
  return h.start_echoserver(relay, options)
end

-- ---- visitors ---------------------------------------------------------------

-- A visitor that has been served, and still is; its own address.
function example.visit(port, options)
  local visitor = h.connect(port, options)
  visitor:send("hello")
  local text, why = visitor:recv_exact(5)
  if text ~= "hello" then
    error(("a visitor of %d is not served: %s"):format(port, why or text), 2)
  end
  return visitor, ("%s:%d"):format(visitor:address())
end

-- The name of the agent that served the visitor from there, once that is over.
function example.server_of(relay, from)
  return h.wait_until("the log tells who served " .. from, function()
    local log = relay:log()
    local conn = log:match("^.*closed conn=(%d+) from=" .. from .. " ")
    local agent = conn and
      log:match("visitor joined conn=" .. conn .. " agent=(%d+)")
    return agent and log:match("agent=" .. agent .. " from=%S+ name=(%S+)")
  end)
end

-- A short visit; the name of the agent that served it.
function example.ask(relay, port, options)
  local visitor, from = example.visit(port, options)
  visitor:shutdown()
  visitor:recv_all()
  visitor:close()
  return example.server_of(relay, from)
end

-- A visit that is turned away for a reason, which the log tells.
function example.denied(relay, port, reason, options)
  local words = ("reason=%s\n"):format(
    reason:find("[^%w%p]") and '"' .. reason .. '"' or reason)
  local before = policy.count(relay, words)
  local visitor, why = sys.connect("127.0.0.1", port, options)
  local text = ""
  if visitor then
    visitor:send(options and options.say or "")
    text, why = visitor:recv_all()
    visitor:close()
  end
  if text ~= "" or why ~= "reset" then
    error(("not turned away: '%s', %s"):format(text, why), 2)
  end
  h.wait_until("the log tells of " .. words, function()
    return policy.count(relay, words) > before
  end)
end

return example
