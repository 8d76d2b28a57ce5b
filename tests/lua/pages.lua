-- SPDX-License-Identifier: MIT
--
-- The pages for script writers as what they show: every program text in them
-- is run. Right above each fence stands what it is:
--
--   <!-- policy: FILE -->   a whole policy: it passes --check, and a test
--                           shows that it does what the page says
--   <!-- part: NAME -->     entries of a policy's table: pass --check
--   <!-- in: HOOK -->       lines of a hook's body: run in a real relay, where
--                           they must not fail; what stands after "-->" is
--                           what that call or print gives ("…": anything).
--                           With "needs relay.NAME" before the end, skipped in
--                           a build that has no such function
--   <!-- console: NAME -->  typed as it stands, with the output that it shows
--   <!-- log: NAME -->      lines of the relay's log, in that order
--   <!-- drawing -->        nothing to run
--
-- Times are not compared, nor are ports; ports and paths that stand in a text
-- are replaced by ones of the test.

local lu = require("luaunit")
local h = require("harness")

local pages = {}

-- Of the last only fences of Lua are read.
pages.list = { "docs/scripting.md", "docs/api.md", "README.md" }

-- ---- the fences -------------------------------------------------------------

function pages.fences_of(path)
  local found, open, marker = {}, nil, nil
  local number = 0
  for line in h.read_file(h.source .. path):gmatch("([^\n]*)\n") do
    number = number + 1
    if open and line == "```" then
      open.text = table.concat(open, "\n") .. "\n"
      if path:find("^docs/") or open.language == "lua" then
        table.insert(found, open)
      end
      open = nil
    elseif open then
      table.insert(open, line)
    elseif line:find("^```") then
      local kind, name, more =
        (marker or ""):match("^<!%-%- (%l+):? ?(%S*) ?(.*) ?%-%->$")
      open = { kind = kind, name = name, language = line:sub(4),
               needs = (more or ""):match("^needs relay%.(%l+) $"),
               where = ("%s:%d"):format(path, number), line = number }
    end
    marker = line
  end
  lu.assertNil(open, path .. ": a fence does not end")
  return found
end

function pages.each_fence(kind)
  local list = {}
  for _, path in ipairs(pages.list) do
    for _, fence in ipairs(pages.fences_of(path)) do
      if fence.kind == kind then
        table.insert(list, fence)
      end
    end
  end
  return list
end

function pages.fence(kind, name)
  for _, one in ipairs(pages.each_fence(kind)) do
    if one.name == name then
      return one
    end
  end
  error(("no fence '%s: %s'"):format(kind, name), 2)
end

-- ---- replacing and comparing ------------------------------------------------

-- Each text to be replaced must be there; a number as a word of its own.
function pages.replaced(text, what)
  for from, to in pairs(what or {}) do
    local pattern = from:gsub("%p", "%%%0")
    if from:find("^%d+$") then
      pattern = "%f[%d]" .. pattern .. "%f[%D]"
    end
    local count
    text, count = text:gsub(pattern, (tostring(to):gsub("%%", "%%%%")))
    lu.assertTrue(count > 0, "there is no " .. from)
  end
  return text
end

function pages.plain(line)
  return (line:gsub("^%d+%-%d+%-%d+T[%d:.]+Z", "TIME")
    :gsub("duration_ms=%d+", "duration_ms=N")
    :gsub("%f[%d]%d%d%d%d+%f[%D]", "PORT")
    :gsub("%d+%.%d s", "N s"))
end

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("([^\n]*)\n") do
    table.insert(lines, pages.plain(line))
  end
  return lines
end

-- Waits until the relay's log has the lines of the fence, in their order.
function pages.expect_log(relay, name)
  local wanted = lines_of(pages.fence("log", name).text)
  local missing
  local ok = pcall(h.wait_until, "", function()
    local at = 1
    for _, line in ipairs(lines_of(relay:log())) do
      at = at + (line == wanted[at] and 1 or 0)
    end
    missing = wanted[at]
    return missing == nil
  end, 5)
  lu.assertTrue(ok, "the log has no line\n" .. tostring(missing))
end

-- The command of a console fence and what it shows.
function pages.session(name)
  return pages.fence("console", name).text:match("^%$ ([^\n]*)\n(.*)")
end

function pages.shell(directory, command)
  local build = h.output_of({ "realpath", h.build }):match("[^\n]+")
  return h.run({ "sh", "-c", command, cwd = directory,
                 env = { PATH = build .. ":" .. os.getenv("PATH") } })
end

-- ---- whole policies ---------------------------------------------------------

-- Written with `what` replaced, and checked.
local function write(name, what)
  local path = h.tmpdir() .. "/" .. name
  local text = pages.replaced(pages.fence("policy", name).text, what)
  h.write_file(path, text)
  local result = h.run({ h.program("relay"), "--check", "--script", path })
  lu.assertEquals(result.status, 0, result.stderr)
  return path
end

-- A relay with the policy; `what` is replaced in it.
function pages.relay(name, what, options)
  options = options or {}
  table.insert(options, "--script")
  table.insert(options, write(name, what))
  return h.start_relay(options)
end

function pages.scene(name, what, options)
  local relay = pages.relay(name, what, options)
  return relay, h.start_echoserver(relay)
end

function pages.assert_served(to, from)
  local visitor = h.connect(to, { from = from })
  visitor:send("hi")
  visitor:shutdown()
  lu.assertEquals({ visitor:recv_all() }, { "hi", "eof" })
  visitor:close()
end

function pages.close_all(sockets)
  for _, socket in ipairs(sockets) do
    socket:close()
  end
end

-- One test for each driver, which is named as the policy that it tries out.
function pages.drive(tests, drivers)
  for name, drive in pairs(drivers) do
    tests["test_policy_" .. name:gsub("%W", "_")] = drive
  end
end

return pages
