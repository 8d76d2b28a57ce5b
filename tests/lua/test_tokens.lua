-- SPDX-License-Identifier: MIT
--
-- The tokens file as its owner meets it: `relay token`, what a relay says of a
-- file at its start, and what SIGHUP changes.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local typed = require("typed")
local sys = h.sys

local T = { limit = 60, tearDown = typed.close_all }

local key = ("00"):rep(32)

local function token(...)
  return h.run({ h.program("relay"), "token", ... })
end

-- Success; the line it printed, if any.
local function made(...)
  local result = token(...)
  lu.assertEquals({ result.status, result.stderr }, { 0, "" })
  return result.stdout
end

local function path()
  return h.tmpdir() .. "/tokens"
end

local function mode_of(file)
  return h.output_of({ "stat", "-c", "%a", file }):match("%d+")
end

local function write_private(file, text)
  h.write_file(file, text)
  h.output_of({ "chmod", "600", file })
  return file
end

-- ---- relay token ------------------------------------------------------------

function T.test_a_new_token_is_all_that_is_printed()
  local file = path()
  local text = made("new", "db", "--tokens", file)
  local secret = text:match("^db%.([%w_-]+)\n$")
  lu.assertNotNil(secret, text)
  lu.assertEquals(#secret, 43)
  lu.assertEquals(mode_of(file), "600")
  lu.assertNil(h.read_file(file):find(secret, 1, true))
  lu.assertStrMatches(h.read_file(file), "db key=%x+\n")
  local other = made("new", "web", "--tokens=" .. file)
  lu.assertNotEquals(other:sub(5), text:sub(4))
end

function T.test_a_list_has_all_but_the_keys()
  local file = path()
  made("new", "db", "--tokens", file)
  made("new", "--tokens", file, "--ports", "443,8000-8100", "--leases", "2",
    "--visitors", "50", "--expires", "2030-12-31T00:00:00Z", "--plain",
    "--note", "the web box", "web")
  lu.assertEquals(made("list", "--tokens", file), "db\n" ..
    "web ports=443,8000-8100 leases=2 visitors=50 " ..
    "expires=2030-12-31T00:00:00Z plain=yes note=the web box\n")
  lu.assertEquals(made("revoke", "db", "--tokens", file), "")
  lu.assertStrMatches(made("list", "--tokens", file),
    "db revoked=yes\nweb .*")
end

function T.test_a_duration_ends_then()
  local file = path()
  local units = { { "30s", 30 }, { "30m", 1800 }, { "12h", 43200 },
    { "90d", 7776000 } }
  for i, unit in ipairs(units) do
    local before = os.time()
    made("new", "t" .. i, "--tokens", file, "--expires", unit[1])
    local list = made("list", "--tokens", file)
    local y, mo, d, hour, mi, s =
      list:match("t" .. i .. " expires=(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)Z")
    local expires = h.output_of({ "date", "-u", "-d",
      ("%s-%s-%s %s:%s:%s"):format(y, mo, d, hour, mi, s), "+%s" })
    expires = math.tointeger(tonumber(expires))
    lu.assertTrue(expires >= before + unit[2] and
      expires <= os.time() + unit[2], list)
  end
end

local function fails(status, pattern, ...)
  local result = token(...)
  lu.assertEquals(result.stdout, "")
  lu.assertStrMatches(result.stderr, pattern)
  lu.assertEquals(result.status, status)
end

function T.test_wrong_usage_is_2()
  local file = path()
  local hint = "\nTry 'relay token.* %-%-help'%.\n"
  fails(2, "relay token: new, list or revoke is missing" .. hint)
  fails(2, "relay token: 'make' is not one of new, list, revoke" .. hint,
    "make")
  fails(2, "relay token new: NAME is missing" .. hint, "new", "--tokens", file)
  fails(2, "relay token new: %-%-tokens is missing" .. hint, "new", "db")
  fails(2, "relay token list: %-%-tokens is missing" .. hint, "list")
  fails(2, "relay token revoke: ID is missing" .. hint, "revoke", "--tokens",
    file)
  fails(2, "relay token list: unexpected argument 'db'" .. hint, "list", "db",
    "--tokens", file)
  fails(2, "relay token new: unknown option '%-%-port' " ..
    "%(did you mean '%-%-ports'%?%)" .. hint, "new", "db",
    "--tokens", file, "--port", 80)
  local function wrong(pattern, ...)
    fails(2, "relay token new: " .. pattern .. hint, "new", "--tokens", file,
      ...)
  end
  wrong("'a%.b' is not an id %(1 to 64 of A%-Z, a%-z, 0%-9, _, %-%)", "a.b")
  wrong("ports: '80%-' is not a list like 8081,9000%-9100", "a", "--ports",
    "80-")
  wrong("%-%-leases: '0' is not a number.*", "a", "--leases", 0)
  wrong("%-%-expires: '3' is neither a time like .* nor a duration .*", "a",
    "--expires", 3)
  wrong("%-%-expires: '0d' is neither .*", "a", "--expires", "0d")
  wrong("%-%-expires: 2020%-01%-01T00:00:00Z has passed", "a", "--expires",
    "2020-01-01T00:00:00Z")
  wrong("note: it is not a line of text", "a", "--note", "a\nb key=" .. key)
  lu.assertNil(io.open(file))
end

function T.test_what_fails_is_1_and_says_why()
  local file = path()
  fails(1, "relay token list: .*/tokens: no such file or directory\n", "list",
    "--tokens", file)
  fails(1, "relay token revoke: .*/tokens: no such file or directory\n",
    "revoke", "db", "--tokens", file)
  fails(1, "relay token new: /nonexistent/tokens: no such file or directory\n",
    "new", "db", "--tokens", "/nonexistent/tokens")
  made("new", "db", "--tokens", file)
  local before = h.read_file(file)
  fails(1, "relay token new: .*/tokens: 'db' is there already\n", "new", "db",
    "--tokens", file)
  fails(1, "relay token revoke: .*/tokens: there is no token 'bd'\n", "revoke",
    "bd", "--tokens", file)
  h.output_of({ "chmod", "640", file })
  fails(1, "relay token new: .*/tokens: mode 0640 lets others at its keys; " ..
    "it has to be 0600\n", "new", "web", "--tokens", file)
  lu.assertEquals(h.read_file(file), before)
end

-- The token is the only thing there is to lose: that it could not be told is
-- not kept quiet.
function T.test_a_token_that_cannot_be_printed()
  local file = path()
  local result = h.run({ "sh", "-c", '"$0" token new db --tokens "$1" ' ..
    ">/dev/full", h.program("relay"), file })
  lu.assertEquals(result.status, 1)
  lu.assertStrMatches(result.stderr, "relay token new: cannot print the " ..
    "token; 'db' is in .*/tokens all the same\n")
end

function T.test_help()
  lu.assertStrContains(made("--help"),
    "relay token new NAME --tokens FILE [OPTION]...\n")
  for _, command in ipairs({ "new", "list", "revoke" }) do
    lu.assertStrMatches(made(command, "--help"), "Usage: relay token " ..
      command .. ".*%-%-tokens FILE.*")
  end
end

-- ---- at once, and cut short -------------------------------------------------

function T.test_two_dozen_at_once_lose_nothing()
  local file, running = path(), {}
  made("new", "first", "--tokens", file)
  for i = 1, 24 do
    running[i] = h.start({ h.program("relay"), "token", "new", "t" .. i,
      "--tokens", file, name = "token", expect = 0, signal = "CONT" })
  end
  for _, process in ipairs(running) do
    lu.assertEquals({ process:wait() }, { "exit", 0 })
  end
  local list = made("list", "--tokens", file)
  lu.assertEquals(select(2, list:gsub("\n", "")), 25)
  for i = 1, 24 do
    lu.assertStrContains("\n" .. list, "\nt" .. i .. "\n")
  end
end

-- Killed at any moment, one leaves the file as it was or as it is to be.
function T.test_killed_at_any_moment()
  local file = path()
  for i = 1, 40 do
    made("new", "t" .. i, "--tokens", file, "--note", ("n"):rep(2000))
  end
  for i = 1, 40 do
    local process = h.start({ h.program("relay"), "token", "revoke", "t" .. i,
      "--tokens", file, name = "token" })
    sys.sleep(i * 0.0002)
    process:kill("KILL")
    process:wait()
    lu.assertEquals(mode_of(file), "600")
    local list = made("list", "--tokens", file)
    lu.assertEquals(select(2, list:gsub("\n", "")), 40)
  end
end

-- ---- a relay ----------------------------------------------------------------

local function start_fails(text, pattern, mode)
  local file = write_private(path(), text)
  h.output_of({ "chmod", mode or "600", file })
  local result = h.run({ h.program("relay"), 0, "--tokens", file })
  lu.assertEquals({ result.status, result.stdout }, { 1, "" })
  lu.assertStrMatches(result.stderr, pattern)
end

function T.test_a_relay_does_not_start_with_a_bad_file()
  start_fails("db key=" .. key .. "\n\nweb key=" .. key .. " prots=1\n",
    "relay: .*/tokens:3: unknown word 'prots' %(did you mean 'ports'%?%)\n")
  start_fails("db key=12\n", "relay: .*/tokens:1: key: not 64 hexadecimal " ..
    "digits\n")
  start_fails("", "relay: .*/tokens: mode 0604 lets others at its keys; it " ..
    "has to be 0600\n", "604")
  local result = h.run({ h.program("relay"), 0, "--tokens", path() })
  lu.assertEquals(result.status, 1)
  lu.assertStrMatches(result.stderr,
    "relay: .*/tokens: no such file or directory\n")
end

function T.test_an_open_relay_says_so_and_another_does_not()
  local open = h.start_relay()
  open:wait_log('warn open to anyone reason="no tokens are configured"')
  typed.agent(open):bye()
  local closed = h.start_relay({ "--tokens", write_private(path(), "") })
  typed.agent(closed, { refused = true })
  lu.assertNotStrContains(closed:log(), "open to anyone")
end

function T.test_without_a_token_there_is_no_address()
  local relay = h.start_relay({ "--tokens", write_private(path(), "") })
  local err = typed.agent(relay, { refused = true, words = "port=0" }).err
  lu.assertEquals({ err.code, err.final, err.reason },
    { "denied", "yes", "denied by policy" })
  relay:wait_log('warn connection refused from=127.0.0.1:%d+ ' ..
    'reason="no token"')
  local agent = h.start_echoserver(relay, { wait = false, expect = 1 })
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  lu.assertStrContains(agent:log(), "relay refused: denied by policy, and " ..
    "it was given no token: see --token-file\n")
end

function T.test_an_agents_token_file_has_a_token()
  local empty = write_private(path(), "")
  for file, why in pairs({ [h.tmpdir()] = "illegal operation on a directory",
    [empty] = "there is no token in it",
    [empty .. ".not"] = "no such file or directory" }) do
    local result = h.run({ h.program("echoserver"), "localhost", 1,
      "--token-file", file })
    lu.assertEquals({ result.status, result.stderr },
      { 1, ("echoserver: %s: %s\n"):format(file, why) })
  end
end

function T.test_a_policy_with_auth_decides()
  local file = write_private(path(), "")
  local relay = h.start_relay({ "--tokens", file, "--script",
    policy.write("return { auth = function() return true end }") })
  typed.agent(relay):bye()
  lu.assertNotStrContains(relay:log(), "open to anyone")
end

function T.test_a_script_may_name_the_file()
  local file = write_private(path(), "")
  local relay = h.start_relay({ "--script",
    policy.write(("return { options = { tokens = %q } }"):format(file)) })
  typed.agent(relay, { refused = true })
end

function T.test_sighup_reads_it_again()
  local file = write_private(path(), "")
  local relay = h.start_relay({ "--tokens", file })
  made("new", "db", "--tokens", file)
  relay:kill("HUP")
  relay:wait_log("info tokens read count=1\n")
  write_private(file, "db key=" .. key .. "\nb key=" .. key .. " leases=0\n")
  relay:kill("HUP")
  relay:wait_log("error tokens stay as they were reason=\"[^\n]*/tokens:2: " ..
    "leases: '0' is not a number %(1%-1000000%)\"\n")
  h.output_of({ "rm", file })
  relay:kill("HUP")
  relay:wait_log("error tokens stay as they were reason=\"[^\n]*/tokens: no " ..
    "such file or directory\"\n")
  made("new", "web", "--tokens", file)
  made("new", "db", "--tokens", file)
  relay:kill("HUP")
  relay:wait_log("info tokens read count=2\n")
  typed.agent(relay, { refused = true })
end

-- Both are read, whatever one of them says.
function T.test_sighup_is_for_script_and_tokens()
  local file = write_private(path(), "")
  local relay = h.start_relay({ "--tokens", file, "--script",
    policy.write('return { start = function() print("here") end }') })
  write_private(file, "bad\n")
  relay:kill("HUP")
  relay:wait_log("error tokens stay as they were")
  relay:wait_log("here.*here")
  lu.assertNotStrContains(relay:log(), "nothing to reload")
end

return T
