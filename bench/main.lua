-- SPDX-License-Identifier: MIT
--
-- The comparison: which systems, which loads, how long; and the page of it.

local here = arg[0]:match("^(.*)/[^/]*$")
local build = os.getenv("RELAY_TEST_BUILD")
package.cpath = build .. "/tests/?.so;" .. package.cpath
package.path = here .. "/?.lua;" .. here .. "/../tests/lua/?.lua;" ..
  package.path

local h = require("harness")
local machine = require("machine")
local page = require("page")
local results = require("results")
local systems = require("systems")

local LOADS <const> = { "exactness", "throughput", "trips", "connections",
                        "first_byte", "pairs" }

-- What each process may open: more than the most pairs need, at two for each.
local DESCRIPTORS <const> = 20000

-- Rounds of each load, whether iperf3 has one for warmth before, and how long
-- one of them lasts. iperf3 can count whole seconds only.
local SPANS <const> = {
  full = { warm = 1, rounds = { throughput = 6, script = 20, trips = 20,
    connections = 20, first_byte = 10, pairs = 3, exactness = 3 },
    sizes = { 1, 10, 100, 1000, 5000 }, seconds = 1, moment = 0.25 },
  quick = { warm = 0, rounds = { throughput = 1, script = 1, trips = 4,
    connections = 3, first_byte = 3, pairs = 1, exactness = 1 },
    sizes = { 1, 1000 }, seconds = 1, moment = 0.2 },
}

local USAGE <const> = [[
usage: ./dev bench [full | quick | page] [OPTION] ...

  full      all of it, in half an hour (the default); writes
            docs/benchmarks.md and its plots
  quick     the same with fewer rounds, in less than five minutes; writes
            build/bench/quick.md
  page      only writes the page of the numbers that are there

  --only LOAD,...      of throughput, trips, connections, first_byte, pairs,
                       exactness
  --systems NAME,...   of those that --list names
  --rounds N           of each load
  --seconds N          of a run of iperf3
  --append             keeps the numbers of other loads from the run before
  --more               and those of these loads too: more rounds of the same
  --into DIRECTORY     where the numbers go, and the page with them
  --list               names the systems, and says which are not there

Ends with 1 when a system that is there did not start, or this relay failed in
anything.
]]

-- ---- what is asked for ------------------------------------------------------

local function usage_error(why)
  io.stderr:write("bench: ", why, "\n", USAGE)
  os.exit(2)
end

local function words(text)
  local list = {}
  for word in text:gmatch("[^,]+") do
    table.insert(list, word:match("^%s*(.-)%s*$"))
  end
  return list
end

local function number(text)
  local value = math.tointeger(tonumber(text))
  if not value or value < 1 then
    usage_error("not a number: " .. tostring(text))
  end
  return value
end

local function loads_of(text)
  local known, list = {}, words(text)
  for _, name in ipairs(LOADS) do
    known[name] = true
  end
  for _, name in ipairs(list) do
    if not known[name] then
      usage_error("no such load: " .. name)
    end
  end
  return list
end

local function parse(arguments)
  local asked = { span = "full" }
  local i = 1
  local function value()
    i = i + 1
    return arguments[i] or usage_error(arguments[i - 1] .. " wants a value")
  end
  if SPANS[arguments[1]] or arguments[1] == "page" then
    asked.span = arguments[1]
    i = 2
  end
  while arguments[i] do
    local option = arguments[i]
    if option == "--only" then
      asked.only = loads_of(value())
    elseif option == "--systems" then
      asked.systems = words(value())
    elseif option == "--rounds" then
      asked.rounds = number(value())
    elseif option == "--seconds" then
      asked.seconds = number(value())
    elseif option == "--append" then
      asked.append = true
    elseif option == "--more" then
      asked.append, asked.more = true, true
    elseif option == "--into" then
      asked.into = value()
    elseif option == "--list" then
      asked.list = true
    elseif option == "--help" then
      io.write(USAGE)
      os.exit(0)
    else
      usage_error("what is " .. option .. "?")
    end
    i = i + 1
  end
  return asked
end

-- ---- who takes part ---------------------------------------------------------

-- A system's name with its commas gone, as options have it.
local function short(name)
  return (name:gsub("[, -]+", "-"):lower())
end

local function list_systems()
  for _, entry in ipairs(systems.list) do
    local lacks = systems.lacks(entry)
    print(("%-18s %s"):format(short(entry.name),
      lacks and "not here: " .. lacks or systems.version(entry)))
  end
end

local function choose(names)
  local wanted, chosen = {}, {}
  for _, name in ipairs(names or {}) do
    wanted[name] = true
  end
  for _, entry in ipairs(systems.list) do
    if not names or wanted[short(entry.name)] then
      wanted[short(entry.name)] = nil
      local lacks = systems.lacks(entry)
      if lacks then
        print(("skipped: %s: there is no %s%s"):format(entry.name, lacks,
          entry.kind == "tunnel" and not lacks:find("^ssh") and
          "; bench/peers builds it" or ""))
      else
        table.insert(chosen, entry)
      end
    end
  end
  if next(wanted) and names then
    usage_error("no such system: " .. next(wanted))
  elseif #chosen == 0 then
    error("none of these systems is here", 0)
  end
  return chosen
end

-- ---- what they share --------------------------------------------------------

-- Certificates for those that need one, and keys for ssh.
local function make_material()
  local dir = h.tmpdir()
  if h.which("openssl") then
    h.output_of({ "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
      "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
      "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext",
      "basicConstraints=critical,CA:TRUE", "-keyout", dir .. "/key.pem",
      "-out", dir .. "/cert.pem" })
    h.output_of({ "openssl", "pkcs12", "-export", "-inkey", dir .. "/key.pem",
      "-in", dir .. "/cert.pem", "-out", dir .. "/cert.pfx", "-passout",
      "pass:benchmark" })
    h.write_file(dir .. "/both.pem", h.read_file(dir .. "/cert.pem") ..
      h.read_file(dir .. "/key.pem"))
  end
  if h.which("ssh-keygen") then
    for _, name in ipairs({ "host", "user" }) do
      h.output_of({ "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
        dir .. "/" .. name })
    end
  end
  return dir
end

-- ---- measuring --------------------------------------------------------------

local function open_results(asked, path)
  if asked.append or asked.span == "page" then
    local file = io.open(path)
    if file then
      file:close()
      return results.load(path)
    end
  end
  return results.new()
end

local function tell_facts(run)
  for name, value in pairs(machine.facts()) do
    run.results:tell(name, value)
  end
  for _, entry in ipairs(run.systems) do
    run.results:tell("version of " .. entry.name, systems.version(entry))
  end
end

local function measure(asked, run)
  h.sys.nofile(DESCRIPTORS)
  local began = h.sys.now()
  tell_facts(run)
  for _, name in ipairs(asked.only or LOADS) do
    local load = require("loads." .. name)
    if not asked.more then
      run.results:drop(load.name)
    end
    run:say("%s", load.name)
    load.run(run)
    page.print(run.results, load.name)
    run:say("%s: done after %.0f s", load.name, h.sys.now() - began)
  end
end

-- Keeps what the systems were started from with the numbers, each recipe in
-- one line.
local function tell_recipes(run)
  for name, recipe in pairs(run.recipes) do
    local parts = {}
    for _, part in ipairs(recipe) do
      table.insert(parts, (part.name and "# " .. part.name .. "\n" or "") ..
        part.text)
    end
    run.results:tell("recipe of " .. name,
      (table.concat(parts, "\n"):gsub("\\", "\\\\"):gsub("\n", "\\n")))
  end
end

local function new_run(asked, kept)
  local span = SPANS[asked.span]
  local run = { results = kept, systems = choose(asked.systems), recipes = {},
    sizes = span.sizes, moment = span.moment, warm = span.warm,
    seconds = asked.seconds or span.seconds, rounds = {} }
  for load, rounds in pairs(span.rounds) do
    run.rounds[load] = asked.rounds or rounds
  end
  function run.say(_, form, ...)
    io.stderr:write("bench: ", form:format(...), "\n")
  end
  run.material = make_material()
  return run
end

-- Where the numbers are kept, and where the page goes: its directory, its name.
local function places(asked)
  local directory = asked.into or build .. "/bench"
  if asked.span == "quick" then
    return directory .. "/quick.tsv", directory, "quick"
  end
  return directory .. "/full.tsv", asked.into or "docs", "benchmarks"
end

-- What is to be mended before these numbers are believed, a line each.
local function failures(kept)
  local list = {}
  for _, row in ipairs(kept.rows) do
    local entry = systems[row.system]
    local failed = row.metric == "failed" or
      row.metric == "holds" and row.value ~= 1
    if failed and entry and (entry.kind == "ours" or row.round == 0) then
      table.insert(list, ("failed: %s: %s %s: %s"):format(row.system, row.load,
        row.case, row.value))
    end
  end
  return list
end

local function measure_all(asked, kept, path)
  local run = new_run(asked, kept)
  kept:keep(path)
  measure(asked, run)
  tell_recipes(run)
  kept:keep(path)
end

-- Does what is asked; whether all of it went well.
local function serve(asked)
  local path, directory, name = places(asked)
  h.output_of({ "mkdir", "-p", path:match("^(.*)/") })
  local kept = open_results(asked, path)
  if asked.span ~= "page" then
    measure_all(asked, kept, path)
  elseif #kept:loads() == 0 then
    error("there are no numbers in " .. path, 0)
  end
  page.write(kept, directory, name)
  local list = failures(kept)
  for _, line in ipairs(list) do
    print(line)
  end
  return #list == 0
end

local asked = parse(arg)
if asked.list then
  list_systems()
  os.exit(0)
end
local ended, well = xpcall(serve, function(why)
  why = tostring(why)
  return why:find("^[^ ]*%.lua:%d+:") and not why:find("interrupted!$") and
    debug.traceback(why) or why
end, asked)
local problems = h.teardown()
h.forget_trust()
if not ended or problems then
  io.stderr:write("bench: ", tostring(problems or well), "\n")
end
os.exit(ended and well and not problems)
