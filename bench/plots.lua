-- SPDX-License-Identifier: MIT
--
-- Results as pictures, by gnuplot: bars for what a few cases compare, lines for
-- what grows.

local h = require("harness")
local summary = require("summary")

local plots = {}

local HEAD <const> = [[
set terminal svg size WIDTH,HEIGHT noenhanced font "sans-serif,11" \
  background "white"
set output "OUTPUT"
set title "TITLE"
set grid y lc rgb "#dddddd"
set border 3
set tics nomirror
set key outside right top
]]

local COLOURS <const> = { "#1b6ca8", "#e07b39", "#3f9b5d", "#b03a5b",
  "#7d5ba6", "#8a8a2b", "#2aa198", "#6b4226", "#d14fa0", "#444444", "#90c2e7",
  "#c9a227" }

local function head(plot, output, width, height)
  return (HEAD:gsub("%f[%u]%u%u%u%u%u+", { WIDTH = tostring(width),
    HEIGHT = tostring(height), OUTPUT = output, TITLE = plot.title }))
end

local function median_of(results, plot, case, system)
  local values = results:values(plot.load, case, system, plot.metric)
  return #values > 0 and summary.median(values) * (plot.scale or 1) or nil
end

local function quoted(text)
  return '"' .. text .. '"'
end

-- Bars: a group for each system, in it a bar for each case.
local function bars(results, plot, names, output)
  local lines = { head(plot, output, 900, 380),
    "set style data histogram", "set style histogram clustered gap 1",
    "set style fill solid noborder", "set xtics rotate by -35",
    "set yrange [0:*]", "$data << END" }
  for _, name in ipairs(names) do
    local row = { quoted(name) }
    for _, case in ipairs(plot.cases) do
      local value = median_of(results, plot, case, name)
      table.insert(row, value and ("%.6g"):format(value) or "NaN")
    end
    table.insert(lines, table.concat(row, " "))
  end
  table.insert(lines, "END")
  local parts = {}
  for i, case in ipairs(plot.cases) do
    table.insert(parts, ("$data using %d:xtic(1) lc rgb %s title %s"):format(
      i + 1, quoted(COLOURS[i]), quoted((plot.word or "%s"):format(case))))
  end
  if #plot.cases == 1 then
    table.insert(lines, "unset key")
  end
  table.insert(lines, "plot " .. table.concat(parts, ", "))
  return table.concat(lines, "\n") .. "\n"
end

-- Lines: one for each system, over cases that are numbers.
local function curves(results, plot, names, output)
  local lines = { head(plot, output, 900, 420), "set logscale xy",
    "set xrange [*:*] noextend",
    "set xlabel " .. quoted(plot.over) }
  local parts = {}
  for i, name in ipairs(names) do
    local points = {}
    for _, case in ipairs(plot.cases) do
      local value = median_of(results, plot, case, name)
      if value and value > 0 then
        table.insert(points, ("%s %.6g"):format(case, value))
      end
    end
    if #points > 0 then
      table.insert(lines, ("$d%d << END\n%s\nEND"):format(i,
        table.concat(points, "\n")))
      table.insert(parts, ("$d%d with linespoints pt %d ps 0.7 lw %s " ..
        "lc rgb %s title %s"):format(i, i, name:find("^relay") and 3 or 1,
        quoted(COLOURS[(i - 1) % #COLOURS + 1]), quoted(name)))
    end
  end
  table.insert(lines, "plot " .. table.concat(parts, ", "))
  return table.concat(lines, "\n") .. "\n"
end

local function has_any(results, plot, names)
  for _, name in ipairs(names) do
    for _, case in ipairs(plot.cases) do
      if median_of(results, plot, case, name) then
        return true
      end
    end
  end
  return false
end

-- What gnuplot is to be told for a plot: {title, load, metric, cases, scale=,
-- over=}; with `over`, the name of what the cases count, it is lines. Nil when
-- there is nothing to be seen.
function plots.script(results, plot, names, output)
  return has_any(results, plot, names) and
    (plot.over and curves or bars)(results, plot, names, output) or nil
end

-- Draws it into a file, if gnuplot and numbers are there; whether they are.
function plots.draw(results, plot, names, output)
  local script = plots.script(results, plot, names, output)
  if not script or not h.which("gnuplot") then
    return false
  end
  h.output_of({ "gnuplot", h.write_file(h.tmpdir() .. "/plot", script) })
  return true
end

return plots
