-- SPDX-License-Identifier: MIT
--
-- Balancers in front of the relay: their PROXY headers are believed, needed,
-- and taken to the last byte and no further; nobody else's are.

local lu = require("luaunit")
local h = require("harness")
local real = require("real")
local typed = require("typed")

local T = { tearDown = typed.close_all }

local BALANCER <const> = "127.0.0.9"
local V1 <const> = "PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n"
local V2 <const> = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" ..
  "\192\0\2\7\198\51\100\1\x04\xd2\x01\xbb"

local function scene(options)
  options = options or {}
  table.insert(options, "--proxy-from")
  table.insert(options, BALANCER .. ",192.0.2.0/24")
  local relay = h.start_relay(options)
  return relay, h.start_echoserver(relay)
end

local function from_balancer(to)
  return h.connect(to, { from = BALANCER })
end

local function assert_echo(visitor, text)
  visitor:send(text)
  lu.assertEquals(visitor:recv_exact(#text), text)
end

-- Both versions, whole or a byte at a time, and bytes right behind them.
function T.test_headers()
  local relay, agent = scene()
  for _, header in ipairs({ V1, V2 }) do
    local visitor = from_balancer(agent)
    visitor:send(header .. "first")
    lu.assertEquals(visitor:recv_exact(5), "first")
    visitor:close()
    visitor = from_balancer(agent)
    for i = 1, #header do
      visitor:send(header:sub(i, i))
    end
    assert_echo(visitor, "by and by")
    visitor:close()
  end
  h.wait_until("all have ended", function()
    local _, count = relay:log():gsub(
      "visitor closed [^\n]* from=192%.0%.2%.7:1234 ", "")
    return count == 4
  end)
end

-- The agent is told where the visitor came from, and where it wanted to go.
function T.test_the_agent_is_told()
  local relay = h.start_relay({ "--proxy-from", BALANCER })
  local agent = typed.agent(relay)
  local visitor = from_balancer(agent)
  visitor:send(V2)
  local message = agent:expect("VISITOR")
  lu.assertEquals({ message.from, message.to },
    { "192.0.2.7:1234", "198.51.100.1:443" })
  visitor:close()
end

-- UNKNOWN and LOCAL: the connection speaks for itself.
function T.test_the_balancer_itself()
  local relay, agent = scene()
  for _, header in ipairs({ "PROXY UNKNOWN\r\n",
                            "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0" }) do
    local visitor = from_balancer(agent)
    visitor:send(header)
    assert_echo(visitor, "hello")
    visitor:shutdown()
    lu.assertEquals(visitor:recv_all(), "")
    visitor:close()
  end
  relay:wait_log("visitor closed [^\n]*from=127%.0%.0%.9:")
end

-- Whoever is not trusted has said these bytes itself.
function T.test_others_are_not_believed()
  local relay, agent = scene()
  local visitor = h.connect(agent)
  assert_echo(visitor, V1)
  visitor:close()
  relay:wait_log("visitor closed [^\n]*from=127%.0%.0%.1:")
end

function T.test_no_header_no_entrance()
  local relay, agent = scene({ "--handshake", "1500ms" })
  for _, words in ipairs({ "GET / HTTP/1.1\r\n\r\n", V1:gsub("\r", ""), "",
                           V1:sub(1, 20) }) do
    local visitor = from_balancer(agent)
    visitor:send(words)
    lu.assertEquals({ visitor:recv_all() }, { "", "reset" })
    visitor:close()
  end
  relay:wait_log("connection refused from=127.0.0.9:%d+ " ..
    'reason="no PROXY header from a balancer"')
  relay:wait_log("connection refused from=127.0.0.9:%d+ " ..
    'reason="no PROXY header in time"')
  -- A port check is nobody's fault.
  local before = relay:log()
  from_balancer(agent):close()
  local visitor = h.connect(agent)
  assert_echo(visitor, "still there")
  visitor:close()
  lu.assertStrContains(relay:log(), before)
  lu.assertNil(relay:log():sub(#before + 1):find("refused"))
end

-- Those that have said nothing hold descriptors, and give them back.
function T.test_silent_ones_end_with_the_gate()
  local relay = h.start_relay({ "--proxy-from", BALANCER, "--grace", "0" })
  local agent = h.start_echoserver(relay)
  local silent = {}
  for i = 1, 20 do
    silent[i] = from_balancer(agent)
  end
  local visitor = h.connect(agent)
  assert_echo(visitor, "behind them")
  visitor:close()
  agent:stop()
  for i = 1, 20 do
    lu.assertEquals({ silent[i]:recv_all() }, { "", "reset" })
    silent[i]:close()
  end
end

-- Agents behind a balancer: the address that they come from is the one told.
function T.test_agents()
  local relay = h.start_relay({ "--proxy-from", BALANCER })
  local agent = from_balancer(relay.port)
  agent:send(V1 .. "RELAY/1 LISTEN name=told\n")
  lu.assertStrContains(agent:recv_line(), "OK host=")
  relay:wait_log("address established [^\n]*from=192.0.2.7:1234 name=told")
  agent:close()
  agent = from_balancer(relay.port)
  agent:send("RELAY/1 LISTEN\n")
  lu.assertEquals({ agent:recv_all() }, { "", "reset" })
  agent:close()
end

function T.test_haproxy()
  h.need("haproxy")
  local relay = h.start_relay({ "--proxy-from", BALANCER })
  local agent = h.start_echoserver(relay)
  for _, option in ipairs({ "send-proxy", "send-proxy-v2" }) do
    local port = real.free_port()
    local path = h.write_file(h.tmpdir() .. "/haproxy.cfg", ([[
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen front
  bind 127.0.0.1:%d
  server relay 127.0.0.1:%d source %s %s
]]):format(port, agent.port, BALANCER, option))
    local haproxy = h.start({ "haproxy", "-db", "-f", path,
      stdout = "memory" })
    real.await_port(haproxy, port)
    local visitor = h.connect(port, { from = "127.0.0.77" })
    assert_echo(visitor, "through two")
    visitor:shutdown()
    lu.assertEquals(visitor:recv_all(), "")
    visitor:close()
    haproxy:kill()
  end
  h.wait_until("both came from the visitor's address", function()
    local _, count = relay:log():gsub(
      "visitor closed [^\n]*from=127%.0%.0%.77:[^\n]*bytes_in=11 ", "")
    return count == 2
  end)
end

function T.test_values_that_cannot_be()
  local result = h.run({ h.program("relay"), "0", "--proxy-from",
    "10.0.0.0/33" })
  lu.assertEquals({ result.status, result.stdout }, { 2, "" })
  lu.assertStrContains(result.stderr, "relay: --proxy-from: '10.0.0.0/33' " ..
    "is not a list of networks (192.0.2.0/24,2001:db8::/32)\n")
end

return T
