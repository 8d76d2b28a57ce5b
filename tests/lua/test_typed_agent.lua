-- SPDX-License-Identifier: MIT
--
-- The protocol spoken by hand, with nothing but nc, as docs/protocol.md shows
-- it; and what an agent that is no program of ours may see.

local lu = require("luaunit")
local h = require("harness")
local scene = require("scene")
local sys = h.sys

local T = {}

-- A nc whose standard input the test types into.
local function type_nc(port)
  h.need("nc")
  return h.start({ "nc", "localhost", port, stdin = "pipe" })
end

-- The values of a line's words.
local function words_of(line)
  local words = {}
  for key, value in line:gmatch(" ([%l%d]+)=(%S*)") do
    words[key] = value
  end
  return words
end

-- A part of the page that shows the agent typed by hand.
local function shown(pattern)
  local page = h.read_file(h.source .. "docs/protocol.md")
  local part = page:match("\n## An agent typed by hand.-\n## ")
  local text = part:match(pattern)
  return text or error("the page does not show " .. pattern)
end

local function at_port(text, port)
  return (text:gsub("localhost 8080", "localhost " .. port))
end

-- Accepts as the page does: the line at once, then what is typed.
local function type_accept(relay, session, id)
  local command = shown("%$ (%(echo \"RELAY/1 ACCEPT.-)\n")
  command = at_port(command, relay.port):gsub("(session)=[^ ]*",
    "%1=" .. session):gsub("id=[^\"]*", "id=" .. id)
  return h.start({ "sh", "-c", command, stdin = "pipe" })
end

h.each_mode(T, "test_typed_into_nc", function()
  local relay = h.start_relay()
  local control = type_nc(relay.port)
  control:write(shown("%$ nc localhost 8080\n(RELAY/1 LISTEN[^\n]*\n)"))
  local ok = words_of(control:wait_line("^OK .*$"))
  lu.assertEquals(ok.host, "localhost")
  lu.assertEquals(ok.heartbeat, "5")
  control:write("PING n=1\n")
  control:wait_line("^PONG n=1$")

  local visitor = type_nc(math.tointeger(ok.port))
  visitor:write("hello\n")
  local line = control:wait_line("^VISITOR .*$")
  lu.assertStrMatches(line, "VISITOR id=%x+ from=127%.0%.0%.1:%d+ " ..
    "to=127%.0%.0%.1:" .. ok.port)

  local data = type_accept(relay, ok.session, words_of(line).id)
  lu.assertEquals(data:read_line(10), "hello")
  data:write("hello yourself\n")
  lu.assertEquals(visitor:read_line(10), "hello yourself")
  visitor:write("and again\n")
  lu.assertEquals(data:read_line(10), "and again")

  visitor:kill("INT")
  data:close_stdin()
  data:wait()
  lu.assertEquals({ data:read_line() }, { nil, "eof" })

  control:write("BYE\n")
  h.wait_until("the address is given back", function()
    return select(2, sys.connect("127.0.0.1", math.tointeger(ok.port))) ==
      "ECONNREFUSED"
  end)
  control:close_stdin()
  control:wait()
end, h.plain_modes)

-- The shell's lines of the page, which answer PING by themselves.
function T.test_the_shell_that_answers()
  h.need("nc")
  local relay = h.start_relay({ "--heartbeat", "200ms", "--dead", "4s" })
  local directory = h.tmpdir()
  local shell = h.start({ "bash", "-c", at_port(shown("```sh\n(.-)```"),
    relay.port), env = { TMPDIR = directory } })
  local ok = words_of(shell:wait_line("^OK .*$"))
  local began = sys.now()
  repeat -- longer than a silent one would live
    shell:wait_line("^PING n=%d+$")
  until sys.now() - began > 5

  local visitor = type_nc(math.tointeger(ok.port))
  local id = words_of(shell:wait_line("^VISITOR .*$")).id
  local fifo = h.output_of({ "sh", "-c", "echo " .. directory .. "/*/say" })
  local say = assert(io.open(fifo:match("%S+"), "w"))
  say:write(("REJECT id=%s reason=not%%20today\n"):format(id))
  say:close()
  visitor:wait()
  relay:wait_log('reason="not today"')
  shell:kill("TERM")
end

-- Nothing of what a visitor says is read before it is joined.
h.each_mode(T, "test_nothing_is_read_early", function()
  local relay = h.start_relay()
  local control = h.connect(relay)
  control:send("RELAY/1 LISTEN\n")
  local ok = words_of(control:recv_line())
  local port = math.tointeger(ok.port)
  local visitor = h.connect(port)
  local _, from = visitor:address()
  local said = sys.pattern(1, 0, 30000)
  visitor:send(said)
  visitor:shutdown()
  scene.await_sent(visitor)
  local id = words_of(control:recv_line()).id
  for _, socket in ipairs(scene.queues()) do
    if socket.from == port and socket.to == from then
      lu.assertTrue(socket.rx >= #said) -- the FIN may be counted
      lu.assertTrue(socket.rx <= #said + 1)
      said = said .. "!"
    end
  end
  lu.assertEquals(said:sub(30001), "!")
  local data = h.connect(relay)
  data:send(("RELAY/1 ACCEPT session=%s id=%s\nwelcome"):format(
    ok.session, id))
  data:shutdown()
  lu.assertEquals({ data:recv_all() }, { said:sub(1, 30000), "eof" })
  lu.assertEquals({ visitor:recv_all() }, { "welcome", "eof" })
  for _, socket in ipairs({ control, visitor, data }) do
    socket:close()
  end
end, h.plain_modes)

-- Bytes right after the line, in one segment or cut anywhere in the line.
h.each_mode(T, "test_bytes_right_after_the_line", function()
  local relay = h.start_relay()
  local control = h.connect(relay)
  control:send("RELAY/1 LISTEN\n")
  local ok = words_of(control:recv_line())
  for _, cut in ipairs({ 1, 8, 30, 70, 1000 }) do
    local visitor = h.connect(math.tointeger(ok.port))
    local id = words_of(control:recv_line()).id
    local text = ("RELAY/1 ACCEPT session=%s id=%s\r\n"):format(
      ok.session, id) .. sys.pattern(1, 0, 200000)
    local data = h.connect(relay)
    data:set({ nodelay = true })
    data:send(text:sub(1, cut))
    scene.await_sent(data)
    data:send(text:sub(cut + 1))
    data:shutdown()
    scene.take(visitor, 1, 200000, 65536)
    scene.expect_eof(visitor)
    visitor:close()
    scene.expect_eof(data)
    data:close()
  end
  control:close()
end, h.plain_modes)

return T
