-- SPDX-License-Identifier: MIT
--
-- Numbers of many runs in a few: medians, percentiles, and between what bounds
-- the true median is.

local summary = {}

local function sorted(values)
  local copy = { table.unpack(values) }
  table.sort(copy)
  return copy
end

function summary.median(values)
  local list = sorted(values)
  local middle = #list // 2
  return #list % 2 == 1 and list[middle + 1] or
    (list[middle] + list[middle + 1]) / 2
end

-- The value that a share (0.99) of them does not exceed.
function summary.percentile(values, share)
  local list = sorted(values)
  return list[math.max(1, math.ceil(#list * share))]
end

-- Two order statistics with the median between them in 95 of 100 cases,
-- whatever the distribution is.
function summary.interval(values)
  local list = sorted(values)
  local below, chance = 0, 0.5 ^ #list
  local total = chance
  while total <= 0.025 do
    below = below + 1
    chance = chance * (#list - below + 1) / below
    total = total + chance
  end
  below = math.max(1, below)
  return list[below], list[#list - below + 1]
end

-- The median of the ratios of pairs, with its interval.
function summary.ratio(over, under)
  local ratios = {}
  for i = 1, #over do
    ratios[i] = over[i] / under[i]
  end
  return summary.median(ratios), summary.interval(ratios)
end

return summary
