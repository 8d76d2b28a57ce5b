-- SPDX-License-Identifier: MIT
--
-- Waits before there is a policy, in a coroutine of its own.
-- end: refused
-- says: wait_at_load.lua:8: relay.sleep cannot wait here

local relay = require "relay"
coroutine.wrap(function() relay.sleep(1) end)()
return {}
