-- SPDX-License-Identifier: MIT
--
-- The example policies as a whole: each passes --check, is listed in their
-- README and has a test; and the two that are there to be read first.

local lu = require("luaunit")
local example = require("example")
local h = require("harness")
local policy = require("policy")

local T = { limit = 60 }

local function names()
  local list = {}
  for name in h.output_of({ "ls", h.source .. "scripts" })
    :gmatch("([%w_]+)%.lua\n") do
    table.insert(list, name)
  end
  return list
end

function T.test_there_are_many()
  lu.assertTrue(#names() >= 16, #names())
end

function T.test_each_passes_check()
  for _, name in ipairs(names()) do
    local result = h.run({ h.program("relay"), "--check", "--script",
                           example.path(name) })
    lu.assertEquals({ result.status, result.stderr }, { 0, "" }, name)
    lu.assertStrMatches(result.stdout, "[^\n]*%.lua: ok: [%l_ ]+\n.*")
  end
end

-- Who starts from one finds in its head how to start it and what to change.
function T.test_each_begins_with_how_to_use_it()
  for _, name in ipairs(names()) do
    local head = example.text(name):match("^(.-)\n\n") .. "\n"
    lu.assertStrContains(head, "-- SPDX-License-Identifier: MIT\n--\n-- ")
    lu.assertStrContains(head, "--script scripts/" .. name .. ".lua")
    lu.assertStrContains(head, "\n-- To change: ")
    for line in head:gmatch("[^\n]*\n") do
      lu.assertEquals(line:sub(1, 2), "--", name)
    end
  end
end

function T.test_each_is_in_the_readme()
  local readme = h.read_file(h.source .. "scripts/README.md")
  for _, name in ipairs(names()) do
    lu.assertStrContains(readme, ("| [%s](%s.lua) | "):format(name, name))
  end
  for name in readme:gmatch("%]%(([%w_]+)%.lua%)") do
    h.read_file(example.path(name))
  end
end

function T.test_each_has_a_test()
  local tests = h.output_of({ "sh", "-c", "cat " .. h.source ..
    "tests/lua/test_policy_examples*.lua" })
  for _, name in ipairs(names()) do
    lu.assertTrue(tests:find("example%.%l+%(\"" .. name .. "\"[,)]") ~= nil,
      "no test starts " .. name)
  end
end

function T.test_default()
  local relay = example.relay("default")
  local agent = h.start_echoserver(relay)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  example.reload(relay)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
end

function T.test_allow_all()
  local relay = example.relay("allow_all")
  local agent = h.start_echoserver(relay)
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
  relay:wait_log("info 127.0.0.1 visits port " .. agent.port ..
    ", agents there: 1\n")
  relay:wait_log("info 127.0.0.1 has left after %d+%.%d s: 5 bytes in, " ..
    "5 out, ended\n")
end

return T
