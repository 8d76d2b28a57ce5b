-- SPDX-License-Identifier: MIT
--
-- State that was damaged, or cannot be written: both are told, nothing is taken
-- for what it is not, and an address is worth more than its file.

local lu = require("luaunit")
local h = require("harness")
local real = require("real")
local stateful = require("stateful")

local start, assert_echo = stateful.start, stateful.assert_echo

local T = { limit = 60 }

local function again(relay, directory)
  relay:kill("KILL")
  relay:wait()
  return start(directory, { port = relay.port })
end

-- The files in it, by name.
local function files_in(directory)
  local files = {}
  for name in h.output_of({ "ls", directory }):gmatch("[^\n]+") do
    files[name] = h.read_file(directory .. "/" .. name)
  end
  return files
end

-- A text as a pattern that matches it and nothing else.
local function plain(text)
  return (text:gsub("%p", "%%%0"))
end

-- ---- a relay's --------------------------------------------------------------

-- What a lease's file may have become: one byte after the other missing or
-- another one, and worse. Each with what the relay is to say of it.
local function damages(whole)
  local list = {}
  for i = 1, #whole do
    local before, byte = whole:sub(1, i - 1), whole:byte(i)
    table.insert(list, { before, i == 1 and "empty" or "cut short" })
    for _, other in ipairs({ byte ~ 1, 0, 255 }) do
      if other ~= byte then
        table.insert(list, { before .. string.char(other) .. whole:sub(i + 1),
          i == #whole and "cut short" or
          i > #whole - 22 and i <= #whole - 17 and "no sum at its end" or
          "not what its sum says" })
      end
    end
  end
  table.insert(list, { ("\0"):rep(#whole), "cut short" })
  table.insert(list, { whole:rep(2), "not what its sum says" })
  table.insert(list, { "\n" .. whole, "not what its sum says" })
  table.insert(list, { "OK host=x port=8081\n", "no sum at its end" })
  table.insert(list, { ("x"):rep(5000), "too long" })
  return list
end

function T.test_no_damage_goes_unnoticed()
  local directory = h.tmpdir()
  local relay = start(directory)
  local agent = h.start_echoserver(relay)
  local name, whole = next(files_in(directory))
  local expected, list = files_in(directory), damages(whole)
  for i, damage in ipairs(list) do
    damage.name = ("lease-%032x"):format(i)
    expected[damage.name] = damage[1]
    h.write_file(directory .. "/" .. damage.name, damage[1])
  end
  expected["else"] = h.read_file(h.write_file(directory .. "/else", "not ours"))
  h.write_file(directory .. "/new-" .. name:sub(7), "OK half of i")
  relay = again(relay, directory)
  assert_echo(agent.port, "all the same")
  relay:wait_log("agent is back [^\n]*port=" .. agent.port)
  local log, told = relay:log(), {}
  for file, bytes, reason in log:gmatch('error lease not restored ' ..
    'file=(%S+) bytes=(%d+) reason="?([%l ]+)') do
    told[file] = bytes .. ": " .. reason
  end
  for _, damage in ipairs(list) do
    lu.assertEquals(told[damage.name],
      ("%d: %s"):format(math.min(#damage[1], 1024), damage[2]))
  end
  lu.assertEquals(select(2, log:gsub("address kept", "")), 1)
  -- They are there to be looked at, and what was never finished is not.
  local found = files_in(directory)
  expected[name], found[name] = nil, nil -- a new ticket
  lu.assertEquals(found, expected)
end

-- A port that another process has by now is no damage.
function T.test_a_file_of_another_time()
  local directory = h.tmpdir()
  local relay = start(directory)
  local agent = h.start_echoserver(relay)
  local name, whole = next(files_in(directory))
  h.write_file(directory .. "/lease-" .. ("0"):rep(32), whole)
  relay = again(relay, directory)
  relay:wait_log('lease not restored file=lease%-[%l%d]+ ' ..
    'reason="address already in use"')
  assert_echo(agent.port, "one of the two")
  relay:wait_log("agent is back")
  lu.assertTrue(name ~= nil)
end

-- ---- a disk that is full ----------------------------------------------------

-- A directory on a disk of 64 KiB, for programs that are started by the
-- function that comes with it; and what fills that disk, or makes room.
local function open_disk()
  h.need("unshare", "nsenter", "mount", "dd")
  local is_root = h.sys.uid() == 0
  local directory = h.tmpdir()
  local holder = h.start({ "unshare", is_root and "-m" or "-rm", "sh", "-c",
    "mount -t tmpfs -o size=64k none " .. directory ..
    " && echo ready && exec sleep 1000", name = "disk" })
  if holder:read_line(h.seconds(5)) ~= "ready" then
    h.skip("mounts are not permitted here: " ..
      (holder:log():match("[^\n]+") or "?"))
  end
  local prefix = { "nsenter", "-t", tostring(holder:pid()), "-m" }
  if not is_root then
    table.insert(prefix, "-U")
    table.insert(prefix, "--preserve-credentials")
  end
  local disk = { directory = directory }
  function disk.command(...)
    local command = table.move({ ... }, 1, select("#", ...), #prefix + 1,
      { table.unpack(prefix) })
    return command
  end
  function disk.fill()
    h.run(disk.command("dd", "if=/dev/zero", "of=" .. directory .. "/ballast",
      "bs=4k", "count=100"))
  end
  function disk.empty()
    h.output_of(disk.command("rm", directory .. "/ballast"))
  end
  function disk.start_relay(port)
    local relay = h.start(disk.command(h.program("relay"), tostring(port),
      "--state", directory .. "/state"))
    relay.port = math.tointeger(relay:wait_line("^listening on .*:(%d+)$"))
    return relay
  end
  function disk.start_echoserver(relay)
    local agent = h.start(disk.command(h.program("echoserver"), "localhost",
      tostring(relay.port), "--state", directory .. "/ticket"))
    agent:wait_address()
    return agent
  end
  return disk
end

function T.test_a_full_disk()
  local disk = open_disk()
  local relay = disk.start_relay(real.free_port())
  disk.fill()
  local agent = disk.start_echoserver(relay)
  relay:wait_log('error lease not kept file=' .. plain(disk.directory) ..
    '/state reason="no space left on device"')
  agent:wait_log('error ticket not kept file=' .. plain(disk.directory) ..
    '/ticket reason="no space left on device"')
  assert_echo(agent.port, "all the same")
  disk.empty()
  relay:wait_log("info leases are kept again")
  agent:wait_log("info ticket is kept again")
  for _, each in ipairs({ relay, agent }) do
    each:kill("KILL")
    each:wait()
  end
  relay = disk.start_relay(relay.port)
  assert_echo(disk.start_echoserver(relay).port, "and kept")
  relay:wait_log("agent is back [^\n]*port=" .. agent.port)
  lu.assertEquals(select(2, relay:log():gsub("not kept", "")), 0)
end

-- What is given up while the disk is gone is told, and does no harm.
function T.test_a_directory_that_is_gone()
  local directory = h.tmpdir() .. "/gone"
  local relay = start(directory)
  local agent = h.start_echoserver(relay)
  h.output_of({ "rm", "-r", directory })
  local other = h.start_echoserver(relay, { "--name", "other" })
  relay:wait_log("lease not kept file=" .. plain(directory))
  assert_echo(agent.port, "hello")
  assert_echo(other.port, "hello")
  agent:stop()
  relay:wait_log("address released port=" .. agent.port)
end

-- ---- an agent's -------------------------------------------------------------

function T.test_a_ticket_that_is_void()
  local relay = h.start_relay()
  local first = h.start_echoserver(relay, { "--state", h.tmpdir() .. "/none" })
  lu.assertNotStrContains(first:log(), "ticket")
  for _, text in ipairs({ "", "\n", "nonsense", ("x"):rep(3000), "\255\0\1\n",
                          "with blanks = and more\n", "one\ntwo\n" }) do
    local is_line = text == "\n" or text == "with blanks = and more\n"
    local file = h.write_file(h.tmpdir() .. "/ticket", text)
    local agent = h.start_echoserver(relay, { "--state", file })
    assert_echo(agent.port, "hello")
    lu.assertEquals(#h.read_file(file), 33)
    lu.assertEquals(agent:log():find("warn ticket not used file=" .. file ..
      ' reason="it is not one whole line"\n', 1, true) == nil, is_line, text)
    agent:stop()
  end
end

-- Cut anywhere it is told; with another letter anywhere it is nobody's.
function T.test_no_damage_to_a_ticket_goes_unnoticed()
  local relay = h.start_relay()
  local file = h.tmpdir() .. "/ticket"
  local agent = h.start_echoserver(relay, { "--state", file })
  local whole = h.read_file(file)
  agent:kill("KILL")
  agent:wait()
  for i = 1, #whole do
    local cut = whole:sub(1, i - 1)
    h.write_file(file, cut)
    local other = h.start_echoserver(relay, { "--state", file })
    lu.assertStrContains(other:log(), "ticket not used")
    lu.assertNotEquals(other.port, agent.port)
    other:stop()
    if i < #whole then
      h.write_file(file, cut .. (whole:sub(i, i) == "0" and "1" or "0") ..
        whole:sub(i + 1))
      other = h.start_echoserver(relay, { "--state", file })
      lu.assertNotEquals(other.port, agent.port)
      other:stop()
    end
  end
  h.write_file(file, whole)
  lu.assertEquals(h.start_echoserver(relay, { "--state", file }).port,
    agent.port)
end

function T.test_a_ticket_that_cannot_be_kept()
  local relay = h.start_relay()
  local agent = h.start_echoserver(relay, { "--state",
    h.tmpdir() .. "/no/such/folder" })
  agent:wait_log("ticket not kept file=[^\n]*/no/such/folder " ..
    'reason="no such file or directory"')
  assert_echo(agent.port, "hello")
  local result = h.run({ h.program("echoserver"), "localhost", "1", "--state",
    "/" })
  lu.assertEquals({ result.status, result.stderr },
    { 1, "echoserver: /: illegal operation on a directory\n" })
end

return T
