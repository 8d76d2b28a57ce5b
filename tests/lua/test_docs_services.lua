-- SPDX-License-Identifier: MIT
--
-- The policies of docs/scripting.md that ask a service.

local lu = require("luaunit")
local h = require("harness")
local pages = require("pages")
local real = require("real")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

local drivers = {}

drivers["ask-redis.lua"] = function()
  h.need("redis-server", "redis-cli")
  if not package.searchpath("redis", "/usr/share/lua/5.3/?.lua") then
    h.skip("lua-redis is not installed")
  end
  local port = real.free_port()
  h.start({ h.which("redis-server"), "--port", tostring(port), "--save", "",
            "--bind", "127.0.0.1", "--dir", h.tmpdir(), signal = "TERM" })
  h.wait_until("redis answers", function()
    return h.run({ "redis-cli", "-p", tostring(port), "sadd", "agents",
                   "web" }).status == 0
  end)
  local relay = pages.relay("ask-redis.lua", { ["6379"] = port })
  h.start_echoserver(relay, { "--name", "web" })
  lu.assertEquals(typed.agent(relay, { words = "name=x", refused = true })
    .err.code, "denied")
  relay:wait_log("reason=\"not in redis\"")
  relay = pages.relay("ask-redis.lua", { ["6379"] = real.free_port() })
  lu.assertEquals(typed.agent(relay, { words = "name=web", refused = true })
    .err.code, "denied")
  relay:wait_log("hook=auth error=[^\n]*127.0.0.1:%d+")
end

-- Takes one request, answers it, and gives it back.
local function serve_once(listener, status)
  local client = assert(listener:accept())
  local request, length = "", 0
  repeat
    local line = assert(client:recv_line())
    length = tonumber(line:lower():match("^content%-length: (%d+)")) or length
    request = request .. line .. "\n"
  until line:match("^\r?$")
  if length > 0 then
    request = request .. client:recv_exact(length)
  end
  client:send("HTTP/1.1 " .. status .. "\r\nContent-Length: 2\r\n" ..
    "Connection: close\r\n\r\nok")
  client:shutdown()
  client:recv_all()
  client:close()
  return request
end

local function need_luasocket()
  if not package.searchpath("socket", package.path) then
    h.skip("lua-socket is not installed")
  end
end

drivers["ask-web.lua"] = function()
  need_luasocket()
  local web = sys.listen()
  local relay = pages.relay("ask-web.lua", { ["8000"] = web:port() })
  for name, status in pairs({ web = "200 OK", other = "403 No" }) do
    local agent = h.start({ h.program("echoserver"), "--name", name,
                            "localhost", tostring(relay.port) })
    lu.assertStrContains(serve_once(web, status),
      "GET /may-come/" .. name .. " ")
    if name == "web" then
      agent:wait_address()
    else
      lu.assertEquals({ agent:wait() }, { "exit", 1 })
    end
  end
  relay:wait_log("reason=\"refused: 403\"")
  web:close()
end

drivers["webhook.lua"] = function()
  need_luasocket()
  local room = sys.listen()
  local relay, agent = pages.scene("webhook.lua", { ["8000"] = room:port() })
  agent:stop()
  lu.assertStrContains(serve_once(room, "200 OK"), "echo has gone: EOF")
  room:close()
  relay:wait_log("agent gone")
end

pages.drive(T, drivers)

return T
