-- SPDX-License-Identifier: MIT
--
-- This relay with `expose`: plain, with a script that counts and limits, and
-- encrypted by a token.

local h = require("harness")

local list = {}

local function system(entry)
  table.insert(list, entry)
end

-- Counts the connections of each address, and limits each.
local SCRIPT <const> = [[
local open = {}
return {
  visitor = function(conn)
    local addr = conn.addr
    if (open[addr] or 0) >= 10000 then return false, "too many" end
    conn:limit { rate_in = 1 << 40, rate_out = 1 << 40, idle = 300 }
    open[addr] = (open[addr] or 0) + 1
  end,
  close = function(conn)
    local left = open[conn.addr] - 1
    open[conn.addr] = left > 0 and left or nil
  end,
}
]]

local function start_ours(s, options, env)
  local relay = { h.program("relay"), "0", "--listen", "127.0.0.1",
    "--log-level", "error", table.unpack(options) }
  s:note({ "relay", "PORT", table.unpack(relay, 3) })
  local hop = s:add(h.start(relay))
  local port = hop:wait_line("^listening on .*:(%d+)$")
  local host, far = s:far(math.tointeger(port))
  local agent = { h.program("expose"), host, tostring(far),
    "127.0.0.1:" .. s.backend, "--log-level", "error", env = env }
  s:note({ env and "RELAY_TOKEN=TOKEN expose" or "expose", "RELAY", "PORT",
    "BACKEND", table.unpack(agent, 5) })
  hop = s:add(h.start(agent))
  hop:wait_address()
  return hop.port
end

system {
  name = "relay", kind = "ours", programs = {},
  start = function(s)
    return start_ours(s, {})
  end,
}

system {
  name = "relay, script", kind = "ours", programs = {},
  start = function(s)
    return start_ours(s, { "--script", s:file("policy.lua", SCRIPT) })
  end,
}

system {
  name = "relay, TLS", kind = "ours", secret = "TLS", programs = {},
  start = function(s)
    local trust = h.trust()
    h.output_of({ "cp", "-p", trust.path, s.directory .. "/tokens" })
    return start_ours(s, { "--tokens", s.directory .. "/tokens" },
      { RELAY_TOKEN = trust.token })
  end,
}

return list
