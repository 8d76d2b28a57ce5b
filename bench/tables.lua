-- SPDX-License-Identifier: MIT
--
-- Results as tables in Markdown: a row for each system, a column for each
-- case.

local summary = require("summary")

local tables = {}

-- Three digits, and no more of them than mean something.
function tables.number(value)
  local size = math.abs(value)
  if size >= 99.95 then
    return ("%.0f"):format(value)
  elseif size >= 9.995 then
    return ("%.1f"):format(value)
  end
  return ("%.2f"):format(value)
end

local function scaled(values, scale)
  local list = {}
  for i, value in ipairs(values) do
    list[i] = value * (scale or 1)
  end
  return list
end

-- "4.58 [4.31, 4.90]", or the median alone where there was one round.
function tables.spread(values, scale)
  local list = scaled(values, scale)
  local text = tables.number(summary.median(list))
  if #list == 1 then
    return text
  end
  local low, high = summary.interval(list)
  return ("%s [%s, %s]"):format(text, tables.number(low), tables.number(high))
end

-- What stands where there is no number: why, if that is short.
local function gap(results, load, case, system)
  local why = results:word(load, case, system, "failed") or
    results:word(load, "", system, "failed") -- it was never started
  return not why and "–" or #why <= 40 and why or "failed"
end

local function cell(results, column, system)
  local load, case, metric = column.load, column.case, column.metric
  if column.over == system then
    return "1"
  elseif column.over then
    local over, under = results:pairs_of(load, case, metric, column.over,
      system)
    if #over == 0 then
      return "–"
    end
    local ratio, low, high = summary.ratio(over, under)
    if #over == 1 then
      return tables.number(ratio)
    end
    return ("%s [%s, %s]"):format(tables.number(ratio), tables.number(low),
      tables.number(high))
  end
  local values = results:values(load, case, system, metric)
  if #values == 0 then
    return gap(results, load, case, system)
  end
  return tables.spread(values, column.scale)
end

-- Lines of a table. A column is {title, load=, case=, metric=, scale=, over=}:
-- with `over`, the ratio of that system to the row's.
function tables.lines(results, names, columns)
  local head, rule = { "system" }, { "---" }
  for _, column in ipairs(columns) do
    table.insert(head, column[1])
    table.insert(rule, "---")
  end
  local lines = { "| " .. table.concat(head, " | ") .. " |",
                  "|" .. table.concat(rule, "|") .. "|" }
  for _, name in ipairs(names) do
    local cells = { name }
    for _, column in ipairs(columns) do
      table.insert(cells, cell(results, column, name))
    end
    table.insert(lines, "| " .. table.concat(cells, " | ") .. " |")
  end
  return lines
end

return tables
