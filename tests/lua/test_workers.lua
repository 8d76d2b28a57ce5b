-- SPDX-License-Identifier: MIT
--
-- With worker threads nothing is different. Tests of other files once more, in
-- one mode and with a pool, or bare over TLS: how streams go and end, what
-- policies are told, well-known programs. Then what is theirs alone. All of it
-- also runs under ThreadSanitizer.

local lu = require("luaunit")
local h = require("harness")

local WORKERS <const> = 2

local T = { limit = 150 }

-- As `test`, with workers in every program it starts.
local function with_workers(test)
  return function(self)
    h.workers = WORKERS
    local ok, why = pcall(test, self)
    h.workers = os.getenv("RELAY_TEST_WORKERS")
    if not ok then
      error(why, 0)
    end
  end
end

-- Minutes under a sanitizer, and no other than those without.
local too_long = { test_a_gibibyte = true,
  test_a_million_one_byte_segments = true }

-- The tests of a file whose names end in one of `endings`, once more.
local function again(file, endings)
  local path = h.source .. "tests/lua/test_" .. file .. ".lua"
  for name, test in pairs(assert(loadfile(path))()) do
    for _, ending in ipairs(endings) do
      local stem = type(test) == "function" and name:match("^(test_.*)" ..
        ending .. "$")
      if stem and not (h.sanitized and too_long[stem]) then
        T["test_" .. file .. name:sub(5)] = with_workers(test)
      end
    end
  end
end

again("stream", { "_pool_splice", "_visitors_splice" })
again("stream_ends", { "_pool_splice", "_bare_tls" })
again("stream_slow", { "_pool_splice" })
again("policy_churn", { "each" })
again("real_web", { "_wrk_splice" })

-- ---- theirs alone -----------------------------------------------------------

local function threads(process)
  local status = h.read_file(("/proc/%d/status"):format(process:pid()))
  return tonumber(status:match("\nThreads:%s+(%d+)"))
end

-- Beside those of libuv, which look names up.
function T.test_only_as_many_threads_as_were_asked_for()
  if h.sanitized then
    h.skip("sanitizers start threads of their own")
  end
  local base = {}
  for _, count in ipairs({ 0, 1, 3 }) do
    local relay = h.start_relay({ "--workers", count })
    local agent = h.start_echoserver(relay, { "--workers", count })
    for i, process in ipairs({ relay, agent }) do
      base[i] = base[i] or threads(process)
      lu.assertEquals(threads(process), base[i] + count)
    end
    agent:stop()
    relay:stop()
  end
end

-- Live pairs on all of them, and a signal: all ends in order, in time.
function T.test_signals_end_it_with_pairs_on_its_threads()
  for _, signal in ipairs({ "INT", "TERM" }) do
    local relay = h.start_relay({ "--workers", WORKERS, "--drain", "100ms" })
    local agent = h.start_echoserver(relay, { "--workers", WORKERS })
    local sockets = {}
    for i = 1, 8 do
      sockets[i] = h.connect(agent)
      sockets[i]:send("hello")
      lu.assertEquals(sockets[i]:recv(5), "hello")
    end
    relay:stop(signal)
    for _, socket in ipairs(sockets) do
      lu.assertEquals({ socket:recv() }, { nil, "reset" })
      socket:close()
    end
    agent:stop()
  end
end

function T.test_no_room_for_threads_is_said()
  local result = h.run({ h.program("relay"), "0", "--workers", "64",
    nofile = 60 })
  lu.assertEquals(result.status, 1)
  lu.assertEquals(result.stdout, "")
  lu.assertStrContains(result.stderr, 'error cannot start workers reason=')
  lu.assertStrContains(result.stderr,
    "relay: the worker threads cannot be started")
end

function T.test_too_many_are_refused()
  local result = h.run({ h.program("relay"), "0", "--workers", "65" })
  lu.assertEquals(result.status, 2)
end

return T
