-- SPDX-License-Identifier: MIT
--
-- Descriptors and pipes that are not to be had: visitors wait, nobody is
-- dropped, nobody who is served notices, and it all goes on afterwards.

local lu = require("luaunit")
local h = require("harness")
local scene = require("scene")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, limits = {}, tearDown = typed.close_all }

local function echo_once(socket, text)
  socket:send(text)
  lu.assertEquals(socket:recv_exact(#text), text)
end

-- CPU time it takes in a second in which nothing happens.
local function assert_calm(process, what)
  local before = process:usage().cpu
  sys.sleep(1)
  local cpu = process:usage().cpu - before
  lu.assertTrue(cpu < 0.5, ("%s: %g s of CPU in a second of %s"):format(
    process.name, cpu, what))
end

local function count(text, pattern)
  local _, times = text:gsub(pattern, "")
  return times
end

-- ---- below any use ----------------------------------------------------------

-- So few that nobody could be served: no relay that ends at the first one who
-- connects.
function T.test_too_few_to_serve_anybody()
  local words = "relay: too few descriptors: raise --max-fds, or the limit " ..
    "of the system (ulimit -n)\n"
  for _, case in ipairs({ { "--max-fds", 4 }, { nofile = 20 } }) do
    local result = h.run({ h.program("relay"), 0, nofile = case.nofile,
      table.unpack(case) })
    lu.assertEquals({ result.status, result.stdout }, { 1, "" })
    lu.assertStrContains(result.stderr, " error too few descriptors left=")
    lu.assertStrContains(result.stderr, words)
  end
end

-- ---- near the limit ---------------------------------------------------------

-- Takes visitors that have their echo, checks and closes them; says how many.
local function harvest(waiting)
  local ready = sys.poll(waiting, "r", 0)
  local served = {}
  for _, socket in ipairs(ready) do
    served[socket] = true
    lu.assertEquals({ socket:recv_all() }, { "hello", "eof" })
    socket:close()
  end
  for i = #waiting, 1, -1 do
    if served[waiting[i]] then
      table.remove(waiting, i)
    end
  end
  return #ready
end

-- 1000 visitors of a relay that may have 256 descriptors. All stay until the
-- relay is full; then those that are served go, and the others get in.
function T.test_a_thousand_visitors_with_256_descriptors()
  local relay = h.start_relay({ nofile = 256 })
  local agent = h.start_echoserver(relay, { "--pool", 0 })
  local sockets = scene.sockets(relay)
  local live = h.connect(agent)
  echo_once(live, "before")
  local waiting, held = {}, {}
  for i = 1, 1000 do
    waiting[i] = h.connect(agent)
  end
  relay:wait_log("descriptors are short, visitors wait used=%d+ " ..
    "reserved=%d+ limit=%d+")
  echo_once(live, "while it is full")
  -- It takes no visitor it cannot serve: all it has taken come through.
  for i = 1, #waiting do
    waiting[i]:send("hello")
  end
  h.wait_until("what was let in is served", function()
    return #sys.poll(waiting, "r", 0) >= 50
  end)
  assert_calm(relay, "fullness")
  lu.assertTrue(relay:fds() <= 256)
  -- Agents still get in: their port has descriptors of its own.
  local guest = typed.agent(relay)
  guest:bye()
  local began, served = sys.now(), 0
  for _, socket in ipairs(waiting) do
    socket:shutdown()
    table.insert(held, socket)
  end
  h.wait_until("all were served", function()
    served = served + harvest(waiting)
    return #waiting == 0
  end, 30)
  lu.assertEquals(served, 1000)
  echo_once(live, "after")
  live:close()
  scene.wait_sockets(relay, sockets)
  -- A line a second, and some for where the seconds start.
  lu.assertTrue(count(relay:log(), "descriptors are short") <=
    sys.now() - began + 6, relay:log())
  lu.assertEquals(count(relay:log(), "turned away"), 0)
  h.echo(agent, 100000)
end

-- The soft limit is no bound: an agent raises it.
function T.test_an_agent_with_a_soft_limit_of_64()
  local relay = h.start_relay()
  local agent = h.start({ "sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh",
    h.program("echoserver"), "localhost", relay.port, nofile = 512 })
  local _, port = agent:wait_line("^established [^(]*%((.*), (%d+)%)$")
  local visitors = {}
  for i = 1, 60 do
    visitors[i] = h.connect(tonumber(port))
    echo_once(visitors[i], "hello")
  end
  for _, visitor in ipairs(visitors) do
    echo_once(visitor, "and again")
    visitor:close()
  end
end

-- The agent is the one that is short: what it cannot serve it says so, and
-- what it serves is not touched.
function T.test_an_agent_with_64_descriptors()
  local relay = h.start_relay()
  local agent = h.start_echoserver(relay, { nofile = 64 })
  local live = h.connect(agent)
  echo_once(live, "before")
  local visitors, served, reset = {}, 0, 0
  for _ = 1, 200 do
    -- A reset may come before the connection is known to be there.
    local visitor, why = sys.connect("127.0.0.1", agent.port)
    if visitor then
      visitor:send("hello")
      table.insert(visitors, visitor)
    else
      lu.assertEquals(why, "reset")
      reset = reset + 1
    end
  end
  for _, visitor in ipairs(visitors) do
    local answer, how = visitor:recv_exact(5)
    if answer == "hello" then
      served = served + 1
    else
      lu.assertEquals(how, "reset")
      reset = reset + 1
    end
  end
  lu.assertTrue(served >= 10 and reset >= 100,
    ("%d served, %d reset"):format(served, reset))
  lu.assertStrContains(agent:log(), "visitor rejected id=")
  lu.assertStrContains(relay:log(), "reason=busy")
  echo_once(live, "after")
  assert_calm(agent, "fullness")
  for _, visitor in ipairs(visitors) do
    visitor:close()
  end
  h.wait_until("it serves again", function()
    local socket = sys.connect("127.0.0.1", agent.port)
    if socket then
      socket:send("again")
      return socket:recv_exact(5) == "again"
    end
  end)
end

-- ---- EMFILE all the same ----------------------------------------------------

-- Options for a program whose `call` is refused while the file `switch` is
-- there.
local function short_of(call, switch)
  return { "--mode", "splice", env = {
    LD_PRELOAD = h.build .. "/tests/emfile.so", SHIM_CALL = call,
    SHIM_WHILE = switch,
    ASAN_OPTIONS = (os.getenv("ASAN_OPTIONS") or "") ..
      ":verify_asan_link_order=0" } }
end

-- The same for a relay, which has to be let at the file.
local function short_relay(call, switch)
  local options = short_of(call, switch)
  table.insert(options, "--allow")
  table.insert(options, "write=" .. switch:match("^(.*)/"))
  return options
end

function T.test_accept_that_fails_drops_nobody()
  local switch = h.tmpdir() .. "/switch"
  local relay = h.start_relay(short_relay("accept4", switch))
  local agent = h.start_echoserver(relay, { "--pool", 0 })
  local sockets = scene.sockets(relay)
  local live = h.connect(agent)
  echo_once(live, "before")
  h.write_file(switch, "")
  local visitors = {}
  for i = 1, 60 do
    visitors[i] = h.connect(agent)
    visitors[i]:send("hello")
    visitors[i]:shutdown()
  end
  h.wait_until("accept4 was refused a few times", function()
    return #h.read_file(switch) >= 5
  end)
  echo_once(live, "while it fails")
  local refused = #h.read_file(switch)
  assert_calm(relay, "EMFILE")
  refused = #h.read_file(switch) - refused
  lu.assertTrue(refused > 0 and refused < 100, refused .. " tries in a second")
  lu.assertEquals(#sys.poll(visitors, "r", 0), 0) -- no end, no reset
  lu.assertStrMatches(relay:log(), '.*warn cannot accept, connections wait ' ..
    'reason="too many open files" used=%d+\n.*')
  lu.assertTrue(count(relay:log(), "cannot accept") <= 4, relay:log())
  os.remove(switch)
  for _, visitor in ipairs(visitors) do
    lu.assertEquals({ visitor:recv_all() }, { "hello", "eof" })
  end
  echo_once(live, "after")
  live:close()
  scene.wait_sockets(relay, sockets)
end

-- Agents wait as visitors do, and those that have come do not notice.
function T.test_an_agent_waits_while_accept_fails()
  local switch = h.tmpdir() .. "/switch"
  local relay = h.start_relay(short_relay("accept4", switch))
  h.write_file(switch, "")
  local agent = h.start_echoserver(relay, { wait = false })
  relay:wait_log("cannot accept, connections wait")
  os.remove(switch)
  agent:wait_address()
  h.echo(agent, 100000)
end

-- ---- no pipes ---------------------------------------------------------------

local function pipes(process)
  local _, list = process:fds()
  return count(table.concat(list, "\n"), "pipe:")
end

-- Both programs want to splice, and no pipe is to be had: they copy. When there
-- are pipes again, the next connections are spliced.
function T.test_without_pipes_bytes_are_copied()
  local switch = h.tmpdir() .. "/switch"
  local relay = h.start_relay(short_relay("pipe2", switch))
  local listener = sys.listen()
  local agent = h.start_expose(relay, listener, short_of("pipe2", switch))
  local before = { pipes(relay), pipes(agent) }
  h.write_file(switch, "")
  for _ = 1, 5 do
    local visitor, served = h.join(agent, listener)
    h.exchange(visitor, served, 4 << 20)
    visitor:close()
    served:close()
  end
  local refused = #h.read_file(switch)
  lu.assertTrue(refused >= 2, "pipe2 was not called")
  lu.assertEquals({ pipes(relay), pipes(agent) }, before)
  -- In the middle of a connection, too.
  local visitor, served = h.join(agent, listener)
  visitor:send("copied")
  lu.assertEquals(served:recv_exact(6), "copied")
  os.remove(switch)
  h.exchange(visitor, served, 4 << 20)
  lu.assertTrue(pipes(relay) > before[1], "no pipe afterwards")
  lu.assertTrue(pipes(agent) > before[2], "no pipe afterwards")
end

-- ---- as a plain user --------------------------------------------------------

local BUSY <const> = 1200

local function need_nobody(limit)
  if sys.uid() ~= 0 then
    h.skip("only root can start programs as nobody")
  end
  local before = sys.nofile()
  if before < limit and not sys.nofile(limit) then
    h.skip("no more than " .. before .. " descriptors are permitted here")
  end
end

-- Pairs whose agent, typed by hand, does not read.
local function stuck_pairs(relay, agent, bytes)
  local writers, readers = {}, {}
  for i = 1, BUSY do
    local visitor, message = agent:visitor({ sndbuf = 16384 })
    local data = agent:accept(message.id, nil, { rcvbuf = 16384 })
    writers[i] = { visitor, send = bytes, send_seed = i }
    readers[i] = { data, recv = bytes, recv_seed = i, eof = true,
      send = 1000, send_seed = BUSY + i, fin = true }
  end
  h.wait_until("each pair holds a pipe", function()
    local so_far = sys.pump({ timeout = 0.2, table.unpack(writers) })
    for i, writer in ipairs(writers) do
      writer.send_from = so_far[i].sent
    end
    lu.assertEquals(so_far.failed, BUSY)
    lu.assertEquals(so_far.failure, "timeout")
    return pipes(relay) >= 2 * BUSY
  end, 120)
  return writers, readers
end

-- A plain user's pipes are small beyond a quota, and cannot be made larger.
-- Here 1200 pairs hold one each: every writer is stuck before any reader reads.
function T.test_1200_pairs_that_each_hold_a_pipe_as_nobody()
  need_nobody(20000)
  local relay = h.start_relay({ user = "nobody", nofile = 20000,
    "--mode", "splice", "--rcvbuf", "16K", "--log-level", "warn",
    "--dead", "1h" }) -- the test is too busy to answer PING
  local agent = typed.agent(relay)
  local writers, readers = stuck_pairs(relay, agent, 512 * 1024)
  assert_calm(relay, "stuck pairs")
  for i, writer in ipairs(writers) do
    writer.fin, writer.eof = true, true
    writer.recv, writer.recv_seed = 1000, BUSY + i
    table.insert(readers, writer)
  end
  h.pump(readers)
  for _, one in ipairs(readers) do
    one[1]:close()
  end
  scene.wait_sockets(relay, 3)
end
T.limits.test_1200_pairs_that_each_hold_a_pipe_as_nobody = 200

-- And through both programs, all busy both ways at once.
function T.test_1200_busy_pairs_as_nobody()
  need_nobody(20000)
  local relay = h.start_relay({ user = "nobody", nofile = 20000,
    "--mode", "splice", "--log-level", "warn" })
  local listener = sys.listen()
  local agent = h.start_expose(relay, listener, { user = "nobody",
    nofile = 20000, "--mode", "splice", "--log-level", "warn" })
  local own, ends = scene.sockets(agent), {}
  local visitors = {}
  for i = 1, BUSY do
    visitors[i] = h.connect(agent)
  end
  for i = 1, BUSY do
    local served = assert(listener:accept(h.seconds(20)))
    -- Who is who does not matter: all visitors send the same.
    table.insert(ends, { visitors[i], send = 65536, send_seed = 1, fin = true,
      recv = 65536, recv_seed = 2, eof = true })
    table.insert(ends, { served, send = 65536, send_seed = 2, fin = true,
      recv = 65536, recv_seed = 1, eof = true })
  end
  h.pump(ends)
  for _, one in ipairs(ends) do
    one[1]:close()
  end
  scene.wait_sockets(agent, own)
end
T.limits.test_1200_busy_pairs_as_nobody = 200

return T
