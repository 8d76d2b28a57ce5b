-- SPDX-License-Identifier: MIT
--
-- What this relay is meant to reach, as tables: what goes through it in a case
-- a column, everything else in a row each.

local tables = require("tables")

local verdicts = {}

local CASES <const> = { "1 in", "1 out", "8 in", "8 out" }

local INTRO <const> = [[
## What it is meant to reach

%d of %d are reached. Each is the ratio of what this relay has to what the
other has; *?* marks those whose bound lies within the interval: another run
may decide otherwise. [Where the limits are](#where-the-limits-are) says of what
is missed what was tried.
]]

local function bound(answer)
  return answer.at_least and "≥ " .. tables.number(answer.at_least) or
    "≤ " .. tables.number(answer.at_most)
end

local function wanted(answers)
  local list, seen = {}, {}
  for _, answer in ipairs(answers) do
    local text = bound(answer)
    if not seen[text] then
      seen[text] = true
      table.insert(list, text)
    end
  end
  return table.concat(list, ", ")
end

-- "met: 2.59 [2.34, 3.11]", "missed by 2 %?: 1.97 [1.89, 2.14]".
function verdicts.text(answer)
  local limit = answer.at_least or answer.at_most
  local text = "met"
  if not answer.met then
    local percent = math.abs(answer.ratio / limit - 1) * 100
    text = (percent < 1 and "missed by %.1f %%" or "missed by %.0f %%")
      :format(percent)
  end
  if answer.low == answer.high then
    return text .. ": " .. tables.number(answer.ratio)
  end
  return ("%s%s: %s [%s, %s]"):format(text,
    answer.low <= limit and limit <= answer.high and "?" or "",
    tables.number(answer.ratio), tables.number(answer.low),
    tables.number(answer.high))
end

-- Beside whom: "haproxy", "the best tunnel: frp".
local function beside(answers)
  local list, seen = {}, {}
  for _, answer in ipairs(answers) do
    if answer.theirs ~= answer.than and not seen[answer.theirs] then
      seen[answer.theirs] = true
      table.insert(list, answer.theirs)
    end
  end
  local than = answers[1].than
  if than:find("^the best") and #list > 0 then
    return than .. ": " .. table.concat(list, "; ")
  end
  return than
end

-- Answers that differ in their case only, together: the rows, as they came.
local function grouped(answers, load)
  local rows, by_key = {}, {}
  for _, answer in ipairs(answers) do
    if (answer.load == "throughput") == (load == "throughput") then
      local key = table.concat({ answer.ours, answer.what, answer.than,
        load and "" or answer.case }, "\0")
      if not by_key[key] then
        by_key[key] = {}
        table.insert(rows, by_key[key])
      end
      table.insert(by_key[key], answer)
    end
  end
  return rows
end

local function row(...)
  return "| " .. table.concat({ ... }, " | ") .. " |"
end

local function add_bytes(lines, rows)
  table.insert(lines, row("of", "what", "beside", "wanted",
    table.unpack(CASES)))
  table.insert(lines, "|" .. ("---|"):rep(4 + #CASES))
  for _, answers in ipairs(rows) do
    local cells = {}
    for i, case in ipairs(CASES) do
      cells[i] = "–"
      for _, answer in ipairs(answers) do
        if answer.case:sub(1, #case) == case then
          cells[i] = verdicts.text(answer)
        end
      end
    end
    table.insert(lines, row(answers[1].ours, answers[1].what,
      beside(answers), wanted(answers), table.unpack(cells)))
  end
  table.insert(lines, "")
end

local function add_others(lines, rows)
  table.insert(lines, row("of", "what", "beside", "wanted", ""))
  table.insert(lines, "|" .. ("---|"):rep(5))
  for _, answers in ipairs(rows) do
    local answer = answers[1]
    table.insert(lines, row(answer.ours, answer.what, beside(answers),
      bound(answer), verdicts.text(answer)))
  end
  table.insert(lines, "")
end

-- Adds to the lines of a page what these answers of targets.lua are.
function verdicts.add(lines, answers)
  local met = 0
  for _, answer in ipairs(answers) do
    met = met + (answer.met and 1 or 0)
  end
  table.insert(lines, INTRO:format(met, #answers))
  local bytes, others = grouped(answers, "throughput"), grouped(answers)
  if #bytes > 0 then
    add_bytes(lines, bytes)
  end
  if #others > 0 then
    add_others(lines, others)
  end
end

return verdicts
