-- SPDX-License-Identifier: MIT
--
-- Rates, shares and times of what may go wrong, each beside the same load
-- without the relay; and what is aimed at. All rows, or those whose numbers are
-- given:
--
--   ./dev bench matrix [ROW ...]
--
-- Without the relay means: the same sockets joined directly; in a network, by
-- the machine that the relay runs on, which forwards packets instead.

local here = arg[0]:match("^(.*)/[^/]*$")
local build = os.getenv("RELAY_TEST_BUILD")
package.cpath = build .. "/tests/?.so;" .. package.cpath
package.path = here .. "/?.lua;" .. here .. "/../tests/lua/?.lua;" ..
  package.path

local h = require("harness")

local wanted = {}
for _, row in ipairs(arg) do
  wanted[row] = true
end

-- Numbers as the table has them: three digits that count.
local function shown(value)
  if not value then
    return "-"
  end
  local size = math.floor(math.log(math.max(math.abs(value), 1e-4), 10))
  return ("%%.%df"):format(math.min(math.max(2 - size, 0), 4)):format(value)
end

-- A row returns cases: {what, unit, relay=, direct=, target=TEXT}.
local function report(number, case)
  local ratio = case.direct and case.relay / case.direct
  print(("%3s  %-48s %8s %8s %-4s %7s  %s"):format(number, case[1],
    shown(case.relay), shown(case.direct), case[2], shown(ratio),
    case.target or ""))
end

local function run(rows)
  for _, row in ipairs(rows) do
    if next(wanted) == nil or wanted[row.number] then
      h.setup()
      for _, case in ipairs(row.measure()) do
        report(row.number, case)
      end
      local problems = h.teardown()
      if problems then
        print(problems)
        os.exit(1)
      end
    end
  end
end

io.stdout:setvbuf("line")
print(("%3s  %-48s %8s %8s %-4s %7s  %s"):format("row", "", "relay", "direct",
  "", "ratio", "aim"))
run(require("matrix_local"))
run(require("matrix_network"))
