-- SPDX-License-Identifier: MIT
--
-- luv in a policy: its own loop, nested in the relay's; what it calls back is
-- bounded like a hook, and nothing of it outlives the policy.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local sys = h.sys

local T = { limit = 60, limits = { test_many_reloads_with_live_handles = 120 } }

if not package.searchpath("luv", package.cpath) then
  function T.test_luv()
    h.skip("luv is not installed")
  end
  return T
end

local function relay_with(script, options)
  return policy.relay('local uv = require "luv" ' .. script, options)
end

-- What a function run in `start` prints.
local function said(script, options)
  return relay_with("return { start = function() relay.spawn(function() " ..
    script .. " end) end }", options)
end

function T.test_timers()
  local relay = relay_with([[
    local fast, lonely, now = uv.new_timer(), uv.new_timer(), uv.now()
    fast:start(20, 20, function()
      print("fast", uv.now() - now >= 20)
    end)
    lonely:start(30, 0, function() print("lonely") fast:close() end)
    lonely:unref()
    return {}]])
  relay:wait_log("info fast true\n.*info lonely")
  local count = policy.count(relay, "info fast")
  sys.sleep(0.1)
  lu.assertEquals(policy.count(relay, "info fast"), count)
end

-- A server of the test's decides; its visitors wait for it.
function T.test_tcp_client_decides()
  local judge = assert(sys.listen())
  local relay = relay_with(([[
    local function ask(word)
      local tcp = uv.new_tcp()
      return relay.wait(function(wake)
        tcp:connect("127.0.0.1", %d, function(err)
          if err then return wake(nil, err) end
          tcp:write(word .. "\n")
          local got = ""
          tcp:read_start(function(why, data)
            got = got .. (data or "")
            if why or not data then tcp:close() wake(got, why) end
          end)
        end)
      end)
    end
    return { visitor = function(conn)
      local answer, why = ask(conn.addr)
      return answer == "yes", why or answer
    end }]]):format(judge:port()))
  local agent = h.start_echoserver(relay)
  for _, answer in ipairs({ "yes", "no", "yes" }) do
    local visitor = h.connect(agent)
    local asked = assert(judge:accept())
    lu.assertEquals(asked:recv_line(), "127.0.0.1")
    visitor:send("hello")
    visitor:shutdown()
    asked:send(answer)
    asked:close()
    local got, how = visitor:recv_all()
    lu.assertEquals({ got, how }, answer == "yes" and { "hello", "eof" } or
      { "", "reset" })
    visitor:close()
  end
  judge:close()
  relay:wait_log("reason=no")
  lu.assertEquals({ policy.ask(agent) }, { "", "reset" })
  relay:wait_log("ECONNREFUSED")
end

for name, case in pairs({
  file = { [[local err, stat = relay.wait(function(wake)
      uv.fs_stat("/", wake) end)
    print(err, stat.type)]], "info nil directory" },
  no_file = { [[print(relay.wait(function(wake)
    uv.fs_stat("/no/such", wake) end))]], "ENOENT" },
  name = { [[local err, list = relay.wait(function(wake)
      uv.getaddrinfo("127.0.0.1", nil, nil, wake) end)
    print(err, list[1].addr)]], "info nil 127.0.0.1" },
  async = { [[local async
    print(relay.wait(function(wake) async = uv.new_async(wake) async:send("x")
      end))]], "info x" },
  idle = { [[local idle, count = uv.new_idle(), 0
    relay.wait(function(wake) idle:start(function()
      count = count + 1 if count == 10 then idle:close(wake) end end) end)
    print("idle", count)]], "info idle 10" },
  callback_that_waits = { [[local timer = uv.new_timer()
    timer:start(1, 0, function() relay.sleep(0.01)
      print("waited", #relay.resolve("127.0.0.1")) end)]], "info waited 1" },
  coroutine_of_its_own = { [[coroutine.wrap(function()
      local co = coroutine.running()
      uv.new_timer():start(1, 0, function() coroutine.resume(co, "up") end)
      print(coroutine.yield())
      relay.sleep(0.01)
      print("and waits")
    end)()]], "info up\n.*info and waits" },
  opened_in_a_hook = { [[local own = coroutine.create(function()
      package.loaded.luv = nil
      local luv = require "luv"
      luv.new_timer():start(1, 0, function() print("late", luv == uv) end)
    end)
    coroutine.resume(own) own = nil collectgarbage()]], "info late true" },
  walk = { [[uv.new_timer() uv.walk(function(handle)
      if not handle:is_closing() then handle:close() end end)
    uv.walk(function() error("in walk") end)
    local timer = uv.new_timer()
    timer:start(10, 0, function() print("still runs") end)
    timer:unref()]], "in walk.*info still runs" },
  loop_is_hidden = { [[print("loop", uv._loop, uv.loop_alive())]],
    "info loop nil true" },
  bad_argument = { [[uv.new_timer():start("x")]], "number expected" },
}) do
  T["test_" .. name] = function()
    said(case[1]):wait_log(case[2])
  end
end

function T.test_required_in_a_hook_only()
  local relay, agent = policy.scene([[return { visitor = function(conn)
    local uv = require "luv"
    local timer = uv.new_timer()
    relay.wait(function(wake) timer:start(1, 0, wake) end)
    timer:close()
    conn:tag("by", "luv")
  end }]])
  for _ = 1, 5 do
    lu.assertEquals(policy.ask(agent, "hello"), "hello")
  end
  h.wait_until("all were let in by it", function()
    return policy.count(relay, "by=luv") == 5
  end)
end

-- ---- faults ----------------------------------------------------------------

for name, case in pairs({
  error = { "error('in callback')", ":1: in callback" },
  error_that_is_no_string = { "error({})", "error=\"?table: " },
  error_that_is_nil = { "error()", "error=nil" },
  endless_loop = { "while true do end", "of CPU time" },
  endless_in_pcall = { [[while true do pcall(function()
    while true do end end) end]], "of CPU time" },
  endless_walk = { "while true do uv.walk(function() end) end",
    "of CPU time" },
  memory_bomb = { [[local t = {}
    while true do t[#t + 1] = ('x'):rep(1e6) .. #t end]],
    "not enough memory", { "--script-budget", "2s" } },
  error_after_a_wait = { "relay.sleep(0.01) error('late')", "1: late" },
  yield = { "coroutine.yield()", "a hook cannot yield" },
}) do
  T["test_fault_" .. name] = function()
    local relay = relay_with("uv.new_timer():start(1, 0, function() " ..
      case[1] .. " end) local other = uv.new_timer() " ..
      "other:start(60, 60, function() print('other') end) return {}",
      { table.unpack(case[3] or {}) })
    local agent = h.start_echoserver(relay)
    relay:wait_log("policy hook failed hook=luv [^\n]*" .. case[2])
    relay:wait_log("info other\n.*info other")
    lu.assertEquals(policy.ask(agent, "hello"), "hello")
    lu.assertEquals(policy.count(relay, "Uncaught"), 0)
  end
end

-- A handle is made in steps, the first of which is for good; a script at its
-- limit is told so between two handles, and nothing breaks.
function T.test_short_of_memory_among_handles()
  local relay = said([[
    local keep, fill = {}, {}
    for i = 1, 2000 do fill[i] = i end
    for i = 1, 300 do
      keep[i] = uv.new_timer()
      local count, ok, why = 0
      pcall(function()
        while true do
          fill[count + 1] = ("x"):rep(900) .. count
          count = count + 1
        end
      end)
      repeat ok, why = pcall(uv.new_timer) until not ok
      for k = 1, count do fill[k] = k end
      if i % 100 == 0 then print(i, why) end
      relay.sleep(0)
    end]], { "--script-memory", "768k" })
  relay:wait_log("info 300 [^\n]*not enough memory", 30)
  policy.reload(relay, "return {}")
  h.echo(h.start_echoserver(relay), 1000)
end

-- ---- what is refused -------------------------------------------------------

local BLOCKS, PROCESS = "hold up everybody", "the whole process"
local refused = {
  ["uv.run()"] = "luv.run: the relay runs",
  ["uv.run('nowait')"] = "luv.run: the relay runs",
  ["uv.stop()"] = "luv.stop: the relay runs",
  ["uv.loop_close()"] = "luv.loop_close: the relay runs",
  ["uv.sleep(1)"] = BLOCKS,
  ["uv.getaddrinfo('localhost')"] = BLOCKS,
  ["uv.getnameinfo({ ip = '127.0.0.1' })"] = BLOCKS,
  ["uv.new_tcp():set_blocking(true)"] = BLOCKS,
  ["uv.new_pipe(false):set_blocking(true)"] = BLOCKS,
  ["uv.new_thread(print)"] = "out of all bounds",
  ["uv.new_work(print, print)"] = "out of all bounds",
  ["uv.spawn('true', {}, print)"] = PROCESS,
  ["uv.kill(1, 0)"] = PROCESS,
  ["uv.new_signal()"] = PROCESS,
  ["uv.chdir('/')"] = PROCESS,
  ["uv.os_setenv('A', 'b')"] = PROCESS,
  ["uv.new_tty(1, false)"] = PROCESS,
  ["uv.print_all_handles()"] = PROCESS,
}

function T.test_refused()
  local calls = {}
  for call in pairs(refused) do
    table.insert(calls, ("print(%q, select(2, pcall(function() %s end)))")
      :format(call, call))
  end
  local relay = said(table.concat(calls, "\n") .. " print('end')")
  relay:wait_log("info end")
  for call, words in pairs(refused) do
    local plain = call:gsub("%p", "%%%0")
    lu.assertStrContains(relay:log():match("info " .. plain .. " ([^\n]*)"),
      words)
  end
end

function T.test_unsafe_has_the_rest()
  local relay = said([[
    uv.sleep(1)
    local process
    process = uv.spawn("true", { args = {} }, function(status)
      print("child", status) process:close() end)
    print(pcall(uv.run))]], { "--unsafe" })
  relay:wait_log("info child 0")
  relay:wait_log("info false [^\n]*luv.run: the relay runs luv's loop")
end

function T.test_not_installed()
  local relay, agent = policy.scene([[
    package.cpath = ""
    print(pcall(require, "luv"))
    print("socket", pcall(relay.resolve, "127.0.0.1"))
    return { visitor = function() relay.sleep(0.01) end }]])
  relay:wait_log("info false [^\n]*luv is not installed " ..
    "%(on Debian: apt install lua%-luv%)")
  lu.assertEquals(policy.ask(agent, "hello"), "hello")
end

-- ---- ends ------------------------------------------------------------------

-- Every kind of handle, and requests that are under way.
local live = [[
  local server = uv.new_tcp()
  server:bind("127.0.0.1", 0)
  server:listen(8, function() local c = uv.new_tcp() server:accept(c)
    c:read_start(function() end) end)
  local client = uv.new_tcp()
  client:connect("127.0.0.1", server:getsockname().port, function()
    client:read_start(function() end)
    client:write(("x"):rep(1000000), function() end)
  end)
  uv.new_timer():start(1, 1, function() end)
  uv.new_timer():start(1000000, 0, function() end)
  uv.new_async(function() end)
  uv.new_idle()
  uv.new_check():start(function() end)
  uv.new_prepare():start(function() end)
  uv.new_fs_event():start("/", {}, function() end)
  uv.new_fs_poll():start("/", 10, function() end)
  uv.new_udp():bind("127.0.0.1", 0)
  uv.new_pipe(false)
  uv.new_timer():close(function() end)
  uv.fs_stat("/", function() end)
  uv.getaddrinfo("localhost", nil, nil, function() end)
  uv.getaddrinfo("127.0.0.1", nil, nil, function() end)
]]

function T.test_exit_with_live_handles()
  for _, place in ipairs({ "%s return {}",
    "return { start = function() %s end }",
    "return { stop = function() %s end }" }) do
    local relay = relay_with(place:format(live))
    local agent = h.start_echoserver(relay)
    lu.assertEquals(policy.ask(agent, "hello"), "hello")
    agent:stop()
    relay:stop("INT", 5)
  end
end

function T.test_a_failed_load_leaves_nothing()
  local relay = policy.relay("return {}")
  local before = relay:fds()
  for _ = 1, 3 do
    policy.reload(relay, 'local uv = require "luv" ' .. live .. " error('x')",
      false)
  end
  relay:wait_fds(before)
end

-- A hook that waits for luv as its policy is replaced gets its answer.
function T.test_reload_lets_a_hook_finish()
  local relay = relay_with([[
    uv.new_timer():start(1, 10, function() end)
    return { visitor = function(conn)
      print("asked")
      relay.wait(function(wake) uv.new_timer():start(300, 0, wake) end)
      conn:tag("by", "old")
    end }]])
  local agent = h.start_echoserver(relay)
  local visitor = h.connect(agent)
  visitor:send("hello")
  visitor:shutdown()
  relay:wait_log("asked")
  policy.reload(relay, "return {}")
  lu.assertEquals(visitor:recv_all(), "hello")
  visitor:close()
  relay:wait_log("visitor closed [^\n]*by=old")
end

local function loops(relay)
  local count = 0
  for _, what in ipairs(select(2, relay:fds())) do
    count = count + (what:find("eventpoll", 1, true) and 1 or 0)
  end
  return count
end

-- What a thread is busy with cannot be taken back: that policy ends later, and
-- nobody waits for it.
function T.test_reload_with_a_request_under_way()
  local relay = policy.relay("return {}", { "--allow", "connect,files" })
  local fifo = h.tmpdir() .. "/fifo"
  h.output_of({ "mkfifo", fifo })
  policy.reload(relay, ([[local uv = require "luv"
    return { start = function()
      uv.fs_open(%q, "r", 0, function() print("never") end)
    end }]]):format(fifo))
  policy.reload(relay, "return {}")
  sys.sleep(0.2) -- the old one is looked at
  h.echo(h.start_echoserver(relay), 1000)
  lu.assertEquals(loops(relay), 2)
  h.write_file(fifo, "")
  h.wait_until("the old one has ended", function()
    return loops(relay) == 1
  end)
  lu.assertEquals(policy.count(relay, "never"), 0)
end

function T.test_many_reloads_with_live_handles()
  local script = 'local uv = require "luv" ' .. live .. " return {}"
  local relay = policy.relay(script)
  local function settle()
    policy.reload(relay, script)
    h.wait_until("the one before has ended", function()
      return loops(relay) == 2
    end)
    return relay:fds(), relay:usage().rss
  end
  for _ = 1, 20 do
    policy.reload(relay, script)
  end
  local fds, rss = settle()
  for _ = 1, 100 do
    policy.reload(relay, script)
  end
  h.wait_until("descriptors are back to what they were", function()
    return settle() == fds
  end)
  local _, after = settle()
  if not h.sanitized then
    lu.assertTrue(after < rss + (4 << 20),
      ("%d bytes more"):format(after - rss))
  end
end

return T
