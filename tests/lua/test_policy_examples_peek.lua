-- SPDX-License-Identifier: MIT
--
-- Example policies that look at a visitor's first bytes, and choose an agent by
-- them.

local lu = require("luaunit")
local example = require("example")
local h = require("harness")
local policy = require("policy")
local sys = h.sys
local typed = require("typed")

local T = { limit = 60 }

function T.tearDown()
  typed.close_all()
end

-- A service for each name, and an agent of that name that leads to it.
local function services(relay, names)
  local targets = {}
  for _, name in ipairs(names) do
    targets[name] = assert(sys.listen())
    h.start_expose(relay, targets[name], { "--name", name })
  end
  return targets
end

local function close_services(targets)
  for _, target in pairs(targets) do
    target:close()
  end
end

-- A visitor that says these parts arrives whole at this service.
local function assert_arrives(port, target, parts)
  local visitor = h.connect(port)
  for i, part in ipairs(parts) do
    if i > 1 then
      sys.sleep(0.05) -- so that it comes as a part
    end
    visitor:send(part)
  end
  local served = assert(target:accept())
  local text = table.concat(parts)
  lu.assertEquals(served:recv_exact(#text), text)
  served:send("back")
  lu.assertEquals(visitor:recv_exact(4), "back")
  served:close()
  visitor:close()
end

-- A visitor is given to an agent that leaves before it takes it: it may not
-- get to the other one.
local function assert_not_given_to_another(relay, port, name, say, other)
  local agent = typed.agent(relay, { words = "name=" .. name })
  local visitor = h.connect(port)
  visitor:send(say)
  agent:expect("VISITOR")
  agent.socket:reset()
  lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
  visitor:close()
  relay:wait_log(('visitor closed [^\n]*reason="nobody serves %s any more"')
    :format(name:gsub("%p", "%%%0")))
  local served = other:accept(0.2)
  if served then
    lu.assertEquals((served:recv_all()), "")
    served:close()
  end
end

-- ---- sni_router -------------------------------------------------------------

-- A TLS client's hello, with or without a server name.
local function hello(name)
  local extension = (">I2s2"):pack(0x23, "")
  if name then
    local names = (">s2"):pack("\0" .. (">s2"):pack(name))
    extension = (">I2s2"):pack(0, names) .. extension
  end
  local body = "\3\3" .. ("r"):rep(32) .. "\0" ..
    (">s2"):pack("\x13\x01") .. "\1\0" .. (">s2"):pack(extension)
  return "\x16\3\1" .. (">s2"):pack("\1" .. (">s3"):pack(body))
end

function T.test_sni_router()
  local relay, port = example.shared("sni_router")
  local targets = services(relay, { "a.example", "b.example" })
  for name, target in pairs(targets) do
    local bytes = hello(name:upper())
    assert_arrives(port, target, { bytes })
    assert_arrives(port, target, { bytes:sub(1, 3), bytes:sub(4, 20),
                                   bytes:sub(21) .. "and more" })
    relay:wait_log("visitor closed [^\n]*sni=" .. name)
  end
  example.reload(relay)
  for bytes, reason in pairs({
    [hello("c.example")] = "nobody serves c.example",
    [hello()] = "no server name",
    ["GET / HTTP/1.1\r\n"] = "no server name",
  }) do
    example.denied(relay, port, reason, { say = bytes })
  end
  close_services(targets)
end

function T.test_sni_router_and_visitors_that_say_too_little()
  local relay, port = example.shared("sni_router", { change = {
    ["PATIENCE = 5"] = "PATIENCE = 0.3" } })
  for _, say in ipairs({ "", "\x16", hello("a.example"):sub(1, 30) }) do
    example.denied(relay, port,
      "the bytes that policy needs did not come", { say = say })
  end
  lu.assertEquals(policy.count(relay, "policy hook failed"), 0)
end

-- The one of several with the fewest visitors.
function T.test_sni_router_and_agents_of_one_name()
  local relay, port = example.shared("sni_router")
  local one = example.agent(relay, "a.example")
  local bytes = hello("a.example")
  local function ask()
    local visitor = h.connect(port)
    visitor:send(bytes)
    lu.assertEquals(visitor:recv_exact(#bytes), bytes)
    return visitor
  end
  local first = ask()
  local two = example.agent(relay, "a.example")
  local second = ask()
  one:stop()
  lu.assertEquals((first:recv_all()), "")
  first:close()
  second:send("still")
  lu.assertEquals(second:recv_exact(5), "still")
  two:stop()
  second:close()
  example.denied(relay, port, "nobody serves a.example", { say = bytes })
end

function T.test_sni_router_and_an_agent_that_leaves()
  local relay, port = example.shared("sni_router")
  local targets = services(relay, { "b.example" })
  assert_not_given_to_another(relay, port, "a.example", hello("a.example"),
    targets["b.example"])
  assert_arrives(port, targets["b.example"], { hello("b.example") })
  close_services(targets)
end

-- ---- protocol_mux -----------------------------------------------------------

function T.test_protocol_mux()
  local relay, port = example.shared("protocol_mux")
  local targets = services(relay, { "ssh", "tls", "http" })
  for name, list in pairs({
    ssh = { { "SSH-2.0-OpenSSH_9.2\r\n" }, { "S", "SH", "-2.0-x\r\n" } },
    tls = { { hello("a.example") }, { "\x16", "\3\1\0\5" }, { hello() } },
    http = { { "GET / HTTP/1.1\r\nHost: a\r\n\r\n" }, { "G", "ET / HTTP/1.0" },
             { "S", "EARCH / HTTP/1.1\r\n" } },
  }) do
    for _, parts in ipairs(list) do
      assert_arrives(port, targets[name], parts)
    end
    relay:wait_log("visitor closed [^\n]*protocol=" .. name)
  end
  for _, say in ipairs({ "\0\1\2\3", "get / http/1.1\r\n", "HELLO-WORLD",
                         ("A"):rep(30) }) do
    example.denied(relay, port, "an unknown protocol", { say = say })
  end
  lu.assertEquals(typed.agent(relay, { words = "name=ftp", refused = true })
    .err.reason, "an agent here is called ssh, tls or http")
  close_services(targets)
end

-- A client that lets its server speak first; and one that stops in a word.
function T.test_protocol_mux_and_silence()
  local relay, port = example.shared("protocol_mux", { change = {
    ["SILENCE = 2"] = "SILENCE = 0.3" } })
  local targets = services(relay, { "ssh", "http" })
  local visitor = h.connect(port)
  local served = assert(targets.ssh:accept())
  served:send("SSH-2.0-server\r\n")
  lu.assertEquals(visitor:recv_line(), "SSH-2.0-server\r")
  served:close()
  visitor:close()
  example.denied(relay, port, "the bytes that policy needs did not come",
    { say = "GE" })
  assert_arrives(port, targets.http, { "GET /\n" })
  example.denied(relay, port, "nobody serves tls", { say = hello() })
  close_services(targets)
end

function T.test_protocol_mux_and_an_agent_that_leaves()
  local relay, port = example.shared("protocol_mux")
  local targets = services(relay, { "http" })
  assert_not_given_to_another(relay, port, "tls", hello(), targets.http)
  close_services(targets)
end

return T
