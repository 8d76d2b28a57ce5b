-- SPDX-License-Identifier: MIT
--
-- Names and networks that are none.
-- end: denied
-- says: bad argument #1 to 'resolve'
-- options: --script-budget 1s --hook-visitor 20s

local relay = require "relay"

return {
  visitor = function(conn, agents)
    if conn.addr ~= "127.0.0.66" then return end
    for _, name in ipairs { "", "\0", ("x"):rep(1e6), "a b", "-", "..", "%" } do
      local list, why = relay.resolve(name)
      assert(list == nil and type(why) == "string", name)
    end
    for _, list in ipairs { { 1 }, { {} }, { "x" }, { "1.2.3.4/64" },
                            { ("1"):rep(1e5) } } do
      assert(not pcall(relay.cidr, list))
    end
    local many = {}
    for i = 1, 1e5 do many[i] = "::/" .. i % 129 end
    assert(relay.cidr(many):has("::1"))
    return relay.resolve()
  end,
}
