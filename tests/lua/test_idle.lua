-- SPDX-License-Identifier: MIT
--
-- Very many visitors that say nothing for long: each is served, costs little
-- memory and no work, and is exact when it speaks at last.
--
-- With RELAY_TEST_FULL=1 there are 9800 of them, as many as 20 000 descriptors
-- hold, for ten minutes; else 500, for a second:
--   RELAY_TEST_FULL=1 ./dev test --preset release lua/idle

local lu = require("luaunit")
local h = require("harness")
local sys = h.sys

local full = os.getenv("RELAY_TEST_FULL") == "1"

local T = { limit = full and 900 or 60 }

local VISITORS <const> = full and 9800 or 500
local SECONDS <const> = full and 600 or 1
local PAIR_BYTES <const> = full and 2048 or 3072 -- tables grow in steps

-- What is the process's alone: a page of a library counts for nobody.
local function memory(process)
  local path = ("/proc/%d/smaps_rollup"):format(process:pid())
  local dirty, clean = 0, 0
  for kind, kb in h.read_file(path):gmatch("Private_(%a+): +(%d+) kB") do
    if kind == "Dirty" then dirty = dirty + kb else clean = clean + kb end
  end
  return (dirty + clean) * 1024
end

local function probe(visitors, word)
  for i, visitor in ipairs(visitors) do
    visitor:send(("%s %d."):format(word, i))
  end
  for i, visitor in ipairs(visitors) do
    local want = ("%s %d."):format(word, i)
    lu.assertEquals(visitor:recv_exact(#want), want)
  end
end

function T.test_idle_pairs()
  -- Descriptors are kept for that many agents that come.
  local relay = h.start_relay({ "--max-visitors", VISITORS,
    "--max-unproven", 128, "--log-level", "warn" })
  local agent = h.start_echoserver(relay, { "--pool", "0", "--log-level",
    "warn" })
  local first = { h.connect(agent) }
  probe(first, "first")
  local base, visitors = memory(relay), {}
  for i = 1, VISITORS - 1 do
    visitors[i] = h.connect(agent)
    if i % 100 == 0 then -- no more at a time than are on their way at once
      visitors[i]:send("?")
      lu.assertEquals(visitors[i]:recv_exact(1), "?")
    end
  end
  probe(visitors, "hello")
  local bytes = (memory(relay) - base) // #visitors
  sys.sleep(SECONDS)
  probe(visitors, "still there")
  probe(first, "last")
  print(("# %d pairs, %d bytes each"):format(#visitors, bytes))
  if not h.sanitized then -- which keeps what is freed
    lu.assertTrue(bytes <= PAIR_BYTES, bytes)
  end
  for _, visitor in ipairs(visitors) do
    visitor:shutdown()
  end
  for _, visitor in ipairs(visitors) do
    lu.assertEquals({ visitor:recv_all() }, { "", "eof" })
    visitor:close()
  end
  first[1]:close()
end

return T
