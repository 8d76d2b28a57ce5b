-- SPDX-License-Identifier: MIT
--
-- Relays that keep their addresses in a directory.

local lu = require("luaunit")
local h = require("harness")
local real = require("real")

local stateful = {}

-- On options.port, or on one that another relay can have after it.
function stateful.start(directory, options)
  options = options or {}
  options.port = options.port or real.free_port()
  table.insert(options, "--state")
  table.insert(options, directory)
  return h.start_relay(options)
end

-- A visitor of the address is served.
function stateful.assert_echo(port, text)
  local visitor = h.connect(port)
  visitor:send(text)
  lu.assertEquals(visitor:recv_exact(#text), text)
  visitor:close()
end

return stateful
