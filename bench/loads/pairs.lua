-- SPDX-License-Identifier: MIT
--
-- How a system grows with the pairs it has: its memory, the round trips of one
-- pair while all others are idle, and the trips of all of them at once. One
-- system at a time: what is idle elsewhere would take memory too.

local echo = require("echo")
local field = require("field")
local h = require("harness")

local growth = { name = "pairs" }

local BYTES <const> = 4096

local function measure(run, place, visitors, count, base, record)
  visitors:open(count)
  h.sys.sleep(0.3)
  local first, all = place.scaffold:memory()
  record("memory", (all - base.all) / count)
  record("relay memory", (first - base.first) / count)
  local _, _, p50, p99 = visitors:say("alone %g", run.moment)
  record("p50", p50)
  record("p99", p99)
  local trips, seconds, _, late = visitors:say("all %g %d", run.moment * 4,
    BYTES)
  record("trips", trips / seconds)
  record("all p99", late)
end

local function grow(run, place, rounds)
  local base, visitors = {}, echo.visitors(place.port)
  base.first, base.all = place.scaffold:memory()
  for _, count in ipairs(run.sizes) do
    local most = place.entry.most
    local function record(metric, value)
      run.results:add(growth.name, count, place.entry.name, rounds[count],
        metric, value)
    end
    if most and count > most[1] then
      record("failed", most[2])
    else
      local ok, why = field.try(measure, run, place, visitors, count, base,
        record)
      if not ok then
        record("failed", why)
        break
      end
    end
  end
  visitors:close()
end

local function grow_once(run, backend)
  local rounds = {}
  for _, count in ipairs(run.sizes) do
    rounds[count] = run.results:last_round(growth.name, count) + 1
  end
  for _, entry in ipairs(field.drawn(run.systems)) do
    local systems = field.open(run, growth.name, { backend = backend.port,
      only = function(other)
        return other == entry
      end })
    systems:rounds(1, "", function(place)
      grow(run, place, rounds)
    end)
    systems:close()
  end
end

function growth.run(run)
  local backend = echo.start()
  for _ = 1, run.rounds.pairs do
    grow_once(run, backend)
  end
  backend:kill("KILL")
end

return growth
