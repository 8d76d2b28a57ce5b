-- SPDX-License-Identifier: MIT
--
-- The example policies, each as it stands in scripts/, doing what it says.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local sys = h.sys

local T = { limit = 60 }

local function example(name, options)
  options = options or {}
  table.insert(options, "--script")
  table.insert(options, h.source .. "scripts/" .. name .. ".lua")
  return h.start_relay(options)
end

function T.test_each_passes_check()
  for path in h.output_of({ "sh", "-c", "ls " .. h.source ..
                            "scripts/*.lua" }):gmatch("[^\n]+") do
    local result = h.run({ h.program("relay"), "--check", "--script", path })
    lu.assertEquals({ result.status, result.stderr }, { 0, "" })
  end
end

function T.test_default()
  local agent = h.start_echoserver(example("default"))
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
end

function T.test_allow_all()
  local relay = example("allow_all")
  local agent = h.start_echoserver(relay)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  relay:wait_log("127.0.0.1 visits port %d+, 1 agents are there")
  relay:wait_log("127.0.0.1 has left after [%d.]+ s: 5 bytes in, 5 out, ended")
end

function T.test_per_ip_limits()
  local relay = example("per_ip_limits")
  local agent = h.start_echoserver(relay)
  local live = {}
  for i = 1, 3 do
    live[i] = h.connect(agent)
    live[i]:send("x")
    lu.assertEquals(live[i]:recv_exact(1), "x")
  end
  lu.assertEquals({ policy.ask(agent) }, { "", "reset" })
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  lu.assertEquals({ policy.ask(agent) }, { "", "reset" })
  for i = 1, 3 do
    live[i]:close()
  end
  h.wait_until("there is room again", function()
    return policy.ask(agent, "hello") == "hello"
  end)
  h.wait_until("the minute's are used up", function()
    policy.ask(agent)
    return relay:log():find("too many connections in a minute", 1, true)
  end)
end

function T.test_cidr_acl()
  local relay = example("cidr_acl")
  local agent = h.start_echoserver(relay)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  local visitor, why = sys.connect("127.0.0.1", agent.port,
    { from = "127.0.0.66" })
  if visitor then
    local text, how = visitor:recv_all()
    lu.assertEquals({ text, how }, { "", "reset" })
    visitor:close()
  else
    lu.assertEquals(why, "reset")
  end
  relay:wait_log("a banned network")
end

local function hello(name)
  local names = ("\0" .. (">s2"):pack(name))
  local extension = (">I2"):pack(0) .. (">s2"):pack((">s2"):pack(names))
  local body = "\3\3" .. ("r"):rep(32) .. "\0" ..
    (">s2"):pack("\x13\x01") .. "\1\0" .. (">s2"):pack(extension)
  return "\x16\3\1" .. (">s2"):pack("\1" .. (">s3"):pack(body))
end

function T.test_sni_router()
  local listener = assert(sys.listen({ host = "::" }))
  local port = listener:port()
  listener:close()
  local text = h.read_file(h.source .. "scripts/sni_router.lua")
  local path = h.write_file(h.tmpdir() .. "/policy.lua",
    (text:gsub("PORT = 8443", "PORT = " .. port)))
  local relay = h.start_relay({ "--script", path })
  local targets = { ["a.example"] = sys.listen(), ["b.example"] = sys.listen() }
  for name, target in pairs(targets) do
    h.start_expose(relay, target, { "--name", name })
  end
  for name, target in pairs(targets) do
    local visitor = h.connect(port)
    local bytes = hello(name:upper())
    visitor:send(bytes:sub(1, 20))
    sys.sleep(0.05)
    visitor:send(bytes:sub(21))
    local served = assert(target:accept(h.seconds(10)))
    lu.assertEquals(served:recv_exact(#bytes), bytes)
    served:close()
    visitor:close()
    relay:wait_log("visitor closed [^\n]*sni=" .. name)
  end
  for bytes, words in pairs({ [hello("c.example")] = "nobody serves c.example",
                              ["GET / HTTP/1.1\r\n"] = "no server name" }) do
    local visitor = h.connect(port)
    visitor:send(bytes)
    lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
    visitor:close()
    relay:wait_log(words)
  end
  for _, target in pairs(targets) do
    target:close()
  end
end

return T
