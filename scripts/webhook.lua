-- SPDX-License-Identifier: MIT
--
-- A web server decides and is told: it is asked about each visitor, and any
-- answer but 2xx denies; and each connection's end is posted to it, in order,
-- as often as it takes until it says 2xx. Neither holds up anybody else.
--
--   apt install lua-socket lua-cjson
--   relay 8080 --script scripts/webhook.lua
--
-- To change: the two addresses, and what is said.

local relay = require "relay"
local http = require "socket.http"
local json = require "cjson"
local ltn12 = require "ltn12"

local ASK = "http://127.0.0.1:8088/visitor"
local TELL = "http://127.0.0.1:8088/ended"
local QUEUE = 10000 -- ends that wait to be told; more are lost, and logged

http.TIMEOUT = 1 -- seconds

local queue = {}
local stopped = false

-- Whether the answer was 2xx; what it was.
local function post(url, message)
  local body = json.encode(message)
  local ok, status = http.request {
    url = url,
    method = "POST",
    source = ltn12.source.string(body),
    headers = { ["content-type"] = "application/json",
                ["content-length"] = #body },
  }
  return ok ~= nil and status // 100 == 2, tostring(status)
end

-- One that is told while a reload comes may be told twice.
local function tell()
  while queue[1] and not stopped and post(TELL, queue[1]) do
    table.remove(queue, 1)
  end
end

return {
  start = function(prev)
    queue = prev and prev.queue or {}
    relay.every(1, tell)
  end,

  save = function()
    return { queue = queue }
  end,

  stop = function()
    stopped = true
  end,

  visitor = function(conn)
    local ok, status = post(ASK, { addr = conn.addr, port = conn.listen_port })
    if not ok then
      return false, "webhook: " .. status
    end
  end,

  close = function(conn)
    if #queue >= QUEUE then
      relay.log("error", "webhook: the end of conn %d is not told", conn.id)
      return
    end
    table.insert(queue, { conn = conn.id, addr = conn.addr,
      port = conn.listen_port, bytes_in = conn.bytes_in,
      bytes_out = conn.bytes_out, duration = conn.duration,
      reason = conn.reason })
  end,
}
