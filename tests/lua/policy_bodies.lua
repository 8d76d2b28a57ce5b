-- SPDX-License-Identifier: MIT
--
-- Cases (see policy_cases.lua) that are one body of a visitor hook.

local lu = require("luaunit")

local bodies = {}

-- Runs a body in a visitor hook, which must let in, and logs what it prints.
function bodies.run(scene, body, options)
  local T = scene.T
  local w = scene.load("return { visitor = function(conn, agents) " .. body ..
    " end, peek = print }", options)
  local conn, agent = T.conn(), T.agent { name = "web", port = 8081 }
  local verdict = w.call("visitor", conn, { agent })
  return w, scene.plain(verdict), conn, agent
end

-- The body says nothing against what it finds.
function bodies.holds(body, options)
  return function(scene)
    local w, verdict = bodies.run(scene, body, options)
    w.advance(1)
    lu.assertEquals(verdict.error, nil)
    lu.assertEquals(scene.told(w), {})
    lu.assertEquals(verdict.deny, nil)
  end
end

-- It raises this, at its line.
function bodies.raises(body, text)
  return function(scene)
    local _, verdict = bodies.run(scene, body)
    lu.assertEquals(verdict.error, text and "policy.lua:1: " .. text)
  end
end

return bodies
