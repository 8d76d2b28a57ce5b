-- SPDX-License-Identifier: MIT
--
-- The policies of docs/scripting.md that choose among agents.

local lu = require("luaunit")
local h = require("harness")
local pages = require("pages")
local real = require("real")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

local drivers = {}

-- Visitors of a shared port: what each says, and which service it reaches.
local function route(relay, port, cases)
  local services = {}
  for _, name in ipairs(cases.agents) do
    services[name] = sys.listen()
    h.start_expose(relay, services[name], { "--name", name })
  end
  for bytes, name in pairs(cases.served) do
    local visitor = h.connect(port)
    visitor:send(bytes)
    local served = assert(services[name]:accept())
    lu.assertEquals(served:recv_exact(#bytes), bytes)
    served:close()
    visitor:close()
  end
  for bytes, words in pairs(cases.denied) do
    typed.turned_away(port, bytes)
    relay:wait_log(words)
  end
  return services
end

local function hello(name)
  local names = ("\0" .. (">s2"):pack(name))
  local extension = (">I2"):pack(0) .. (">s2"):pack((">s2"):pack(names))
  local body = "\3\3" .. ("r"):rep(32) .. "\0" ..
    (">s2"):pack("\x13\x01") .. "\1\0" .. (">s2"):pack(extension)
  return "\x16\3\1" .. (">s2"):pack("\1" .. (">s3"):pack(body))
end

drivers["sni.lua"] = function()
  local port = real.free_port()
  local relay = pages.relay("sni.lua", { ["443"] = port })
  pages.close_all(route(relay, port, {
    agents = { "a.example", "b.example" },
    served = { [hello("A.example")] = "a.example",
               [hello("b.example")] = "b.example" },
    denied = { [hello("c.example")] = "nobody serves c.example",
               ["hi"] = "nobody serves nil" },
  }))
end

drivers["http-host.lua"] = function()
  local port = real.free_port()
  local relay = pages.relay("http-host.lua", { ["80"] = port })
  local function get(host)
    return "GET / HTTP/1.1\r\nHost: " .. host .. "\r\n\r\n"
  end
  route(relay, port, {
    agents = { "a.example", "b.example" },
    served = { [get("A.example")] = "a.example",
               [get("b.example:80")] = "b.example" },
    denied = { [get("c.example")] = "no such site: c.example",
               ["nonsense"] = "no such site: nil" },
  })
end

-- A reload comes before its first bytes do.
function T.test_http_host_of_a_reload()
  local port = real.free_port()
  local relay = pages.relay("http-host.lua", { ["80"] = port })
  local service = sys.listen()
  h.start_expose(relay, service, { "--name", "a.example" })
  local visitor = h.connect(port)
  visitor:send("GET ")
  relay:kill("HUP")
  relay:wait_log("policy reloaded")
  visitor:send("/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
  local served = assert(service:accept())
  served:close()
  visitor:close()
  lu.assertNotStrContains(relay:log(), "policy hook failed")
end

drivers["magic.lua"] = function()
  local port = real.free_port()
  local relay = pages.relay("magic.lua", { ["443"] = port })
  local services = route(relay, port, {
    agents = { "ssh", "web" },
    served = { ["SSH-2.0-x\r\n"] = "ssh", [hello("a")] = "web" },
    denied = { ["GET /"] = "neither SSH nor TLS" },
  })
  local silent = h.connect(port)
  local served = assert(services.ssh:accept())
  served:send("greeting")
  lu.assertEquals(silent:recv_exact(8), "greeting")
  pages.close_all({ silent, served })
end

-- Two echo servers on a shared port, and which of them serves a visitor.
local function two_agents(name, names)
  local port = real.free_port()
  local relay = pages.relay(name, { ["8443"] = port },
    { "--log-level", "debug" })
  for _, agent in ipairs(names) do
    h.start_echoserver(relay, { "--name", agent })
  end
  local seen = 0
  return function(from)
    pages.assert_served({ port = port }, from)
    seen = seen + 1
    return h.wait_until("it was joined", function()
      local at, agent = 0, nil
      for number in relay:log():gmatch("visitor joined conn=%d+ agent=(%d+)") do
        at, agent = at + 1, number
      end
      return at == seen and agent
    end)
  end, relay
end

drivers["sticky.lua"] = function()
  local served_by = two_agents("sticky.lua", { "one", "two" })
  local seen = {}
  for i = 2, 9 do
    local agent = served_by("127.0.0." .. i)
    seen[agent] = true
    for _ = 1, 2 do
      lu.assertEquals(served_by("127.0.0." .. i), agent)
    end
  end
  local count = 0
  for _ in pairs(seen) do
    count = count + 1
  end
  lu.assertEquals(count, 2)
end

drivers["canary.lua"] = function()
  local served_by, relay = two_agents("canary.lua", { "main", "canary" })
  local count = {}
  for _ = 1, 40 do
    local agent = served_by()
    count[agent] = (count[agent] or 0) + 1
  end
  lu.assertEquals(count, { ["1"] = 38, ["2"] = 2 })
  relay:wait_log("canary=yes")
end

pages.drive(T, drivers)

return T
