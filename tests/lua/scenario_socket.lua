-- SPDX-License-Identifier: MIT
--
-- What one process can do with sockets on its own, line by line: the same under
-- LuaSocket's C module and in a policy. Whatever differs by chance is a word.

local socket = require("socket")
local ltn12 = require("ltn12")
local mime = require("mime")

local lines, words = {}, {}

local function text_of(value)
  if words[value] then
    return words[value]
  end
  if type(value) == "table" then
    local keys = {}
    for key, item in pairs(value) do
      table.insert(keys, text_of(key) .. "=" .. text_of(item))
    end
    table.sort(keys)
    return "{" .. table.concat(keys, ",") .. "}"
  end
  -- By which of its two names Lua finds a function is chance as well.
  local text = tostring(value):gsub(": 0x%x+", ": POINTER")
    :gsub("'socket%.core%.", "'socket.")
  return math.type(value) == "float" and text .. "f" or
    type(value) == "string" and ("%q"):format(text) or text
end

local function show(name, ...)
  local list = table.pack(...)
  for i = 1, list.n do
    list[i] = text_of(list[i])
  end
  table.insert(lines, name .. ": " .. table.concat(list, " "))
end

local function try(name, f, ...)
  show(name, pcall(f, ...))
end

-- Two ends of a connection, and the server between them.
local function join()
  local server = assert(socket.bind("127.0.0.1", 0))
  local _, port = server:getsockname()
  local client = socket.tcp()
  assert(client:connect("127.0.0.1", port) == 1)
  local served = assert(server:accept())
  return client, served, server
end

-- ---- names and classes ----------------------------------------------------

show("version", socket._VERSION, socket._SETSIZE, socket._SOCKETINVALID)
for _, name in ipairs { "bind", "connect", "connect4", "connect6", "select",
    "sleep", "gettime", "newtry", "protect", "skip", "tcp", "tcp4", "tcp6",
    "try", "choose", "sink", "source", "udp" } do
  show(name, type(socket[name]))
end

do
  local master, client, served, server = socket.tcp(), join()
  for _, name in ipairs { "accept", "bind", "close", "connect", "dirty",
      "getfamily", "getfd", "getoption", "getpeername", "getsockname",
      "getstats", "gettimeout", "listen", "receive", "send", "setfd",
      "setoption", "setpeername", "setsockname", "setstats", "settimeout",
      "shutdown", "class" } do
    show(name, type(master[name]), type(client[name]), type(server[name]))
  end
  show("objects", master, client, served, server)
  show("classes", master.class, client.class, server.class, master.nothing)
  show("unopened", master:getfd(), master:getfamily(), master:dirty())
  show("unopened names", master:getsockname())
  show("unopened peer", master:getpeername())
  show("unopened listen", master:listen())
  show("unopened option", master:setoption("keepalive", true))
  show("unopened option", master:getoption("keepalive"))
  show("unopened error", master:getoption("error"))
  try("master send", master.send, master, "x")
  try("master receive", master.receive, master)
  try("client accept", client.accept, client)
  try("client bind", client.bind, client, "127.0.0.1", 0)
  try("client listen", client.listen, client)
  try("server send", server.send, server, "x")
  try("server shutdown", server.shutdown, server)
  try("no object", client.send, {}, "x")
  try("no object", client.close, nil)
  try("no object", client.getfd, io.stdout)
  show("timeouts", client:gettimeout())
  show("settimeout", client:settimeout(2), client:settimeout(3, "t"))
  show("timeouts", client:gettimeout())
  show("settimeout", client:settimeout(), client:settimeout(nil, "r"))
  show("timeouts", client:gettimeout())
  try("settimeout", client.settimeout, client, 1, "x")
  try("settimeout", client.settimeout, client, "one")
  show("close", client:close(), served:close(), server:close(),
    master:close(), client:close())
  show("closed", client:getfd(), client:getfamily(), client:dirty())
  show("closed send", client:send("abc"))
  show("closed send from", client:send("abc", 3))
  show("closed receive", client:receive())
  show("closed receive prefix", client:receive(5, "ab"))
  show("closed shutdown", client:shutdown())
  show("closed accept", server:accept())
  show("closed names", client:getsockname())
  show("closed peer", client:getpeername())
  show("closed timeouts", client:settimeout(1), client:gettimeout())
  show("object", client, server)
end

-- ---- bytes ----------------------------------------------------------------

do
  local client, served, server = join()
  local long = ("0123456789abcdef"):rep(4000)
  local _, port = client:getsockname()
  words[port], words[tonumber(port)] = "PORT", "NUMBER"
  show("sockname", client:getsockname())
  show("peername", served:getpeername())
  show("family", client:getfamily(), served:getfamily(), server:getfamily())
  show("send", client:send("abc"))
  show("send empty", client:send(""))
  show("send part", client:send("abcdef", 2, 4))
  show("send from the end", client:send("abcdef", -2))
  show("send to the end", client:send("abcdef", 2, -2))
  show("send beyond", client:send("abcdef", 3, 100))
  show("send before", client:send("abcdef", -100, 1))
  show("send nothing", client:send("abcdef", 5, 4))
  show("send nothing", client:send("abcdef", 10))
  show("send number", client:send(12.5))
  show("send fraction", client:send("abcdef", 2.7, 3.9))
  try("send nil", client.send, client)
  try("send table", client.send, client, {})
  try("send place", client.send, client, "x", "y")
  show("receive", served:receive(6))
  show("receive", served:receive(3, "pre"))
  show("receive less than the prefix", served:receive(2, "prefix"))
  show("receive as much", served:receive(6, "prefix"))
  show("receive more", served:receive(7, "prefix"))
  show("receive text", served:receive("2"))
  show("receive fraction", served:receive(2.9))
  show("dirty", served:dirty(), client:dirty())
  show("stats", (served:getstats()), (select(2, client:getstats())))
  show("receive none", served:receive(0))
  served:settimeout(0.05)
  show("rest", served:receive(100))
  show("receive none", served:receive(0))
  show("dirty", served:dirty())
  for _, pattern in ipairs { "l", "a", "*x", "*", "", "*line", "*all", "*L" } do
    client:send("y\n")
    try("pattern " .. pattern, served.receive, served, pattern)
  end
  try("pattern table", served.receive, served, {})
  try("pattern -1", served.receive, served, -1)
  try("prefix table", served.receive, served, 1, {})
  served:receive(1000)
  client:send("one\ntwo\r\nth\r\rree\r\n\r\n\nfour")
  for _ = 1, 6 do
    show("line", served:receive("*l"))
  end
  show("line", served:receive())
  client:send("more\nlast")
  show("line with prefix", served:receive("*l", "the "))
  show("long", client:send(long .. "\n"))
  show("long line", #served:receive("*l", ""))
  client:send(long)
  show("long", served:receive(#long - 1) == long:sub(1, -2))
  show("stats", (served:getstats()))
  show("setstats", served:setstats(1, 2, 3))
  local received, sent, age = served:getstats()
  show("stats", received, sent, age > 2.9 and age < 10)
  show("setstats", served:setstats())
  client:send("tail")
  client:shutdown("send")
  show("all", served:receive("*a", "and "))
  show("all again", served:receive("*a", "and "))
  show("line at the end", served:receive("*l", "and "))
  show("count at the end", served:receive(3, "and "))
  show("count at the end", served:receive(9, "and "))
  show("none at the end", served:receive(0))
  show("reply", served:send("reply\nunfinished"))
  served:close()
  show("reply", client:receive())
  show("unfinished", client:receive())
  show("end", client:receive())
  client:close()
  server:close()
end

-- ---- ends -----------------------------------------------------------------

do
  local client, served, server = join()
  served:setoption("linger", { on = true, timeout = 0 })
  served:close()
  show("reset", client:receive("*a"))
  show("after a reset", client:receive("*a"))
  show("send after a reset", client:send("x"))
  client:close()
  for _, how in ipairs { "receive", "send", "both", false } do
    client = socket.connect("127.0.0.1",
      (select(2, server:getsockname())))
    served = server:accept()
    if how then
      show("shutdown", client:shutdown(how))
    else
      show("shutdown", client:shutdown())
    end
    served:settimeout(0.05)
    client:settimeout(0.05)
    show("send", client:send("x"))
    show("receive", served:receive())
    show("back", served:send("y"))
    show("receive", client:receive())
    client:close()
    served:close()
  end
  try("shutdown", client.shutdown, client, "x")
  server:close()
end

-- ---- time-outs ------------------------------------------------------------

do
  local client, served, server = join()
  client:send("part")
  served:settimeout(0)
  socket.sleep(0.05)
  show("now", served:receive(10))
  show("now", served:receive())
  server:settimeout(0)
  show("accept now", server:accept())
  server:settimeout(0.05)
  show("accept", server:accept())
  served:settimeout(0.05)
  served:settimeout(10, "t")
  show("block", served:receive("*a"))
  served:settimeout(10)
  served:settimeout(0.05, "t")
  show("total", served:receive(1, ""))
  served:settimeout(nil)
  served:settimeout(0, "t")
  show("none in all", served:receive(1))
  client:settimeout(0.05)
  client:setoption("send-buffer-size", 4096)
  local _, why, count = client:send(("x"):rep(30000000))
  show("full", why, count > 4096 and count < 30000000)
  client:settimeout(0)
  show("full now", select(2, client:send("x")), select(3, client:send("x")))
  local began = socket.gettime()
  socket.sleep(-1)
  socket.sleep(0.05)
  show("slept", socket.gettime() - began >= 0.05, socket.sleep(0))
  client:close()
  served:close()
  server:close()
end

-- ---- options --------------------------------------------------------------

do
  local client, served, server = join()
  for _, name in ipairs { "keepalive", "reuseaddr", "reuseport",
      "tcp-nodelay" } do
    for _, on in ipairs { true, false } do
      show(name, client:setoption(name, on), client:getoption(name) == on)
    end
    try(name, client.setoption, client, name, 1)
    try(name, client.setoption, client, name)
  end
  for _, name in ipairs { "tcp-keepidle", "tcp-keepcnt", "tcp-keepintvl" } do
    show(name, client:setoption(name, 7), client:getoption(name))
    show(name, client:setoption(name, -5))
  end
  show("buffers", client:setoption("recv-buffer-size", 8192),
    client:getoption("recv-buffer-size"))
  show("linger", client:getoption("linger"))
  show("linger", client:setoption("linger", { on = true, timeout = 3 }))
  show("linger", client:getoption("linger"))
  show("linger", client:setoption("linger", { on = false, timeout = 0 }))
  try("linger", client.setoption, client, "linger", 1)
  try("linger", client.setoption, client, "linger", { on = 1, timeout = 1 })
  try("linger", client.setoption, client, "linger", { on = true })
  show("error", client:getoption("error"))
  show("fastopen", server:setoption("tcp-fastopen", 5))
  show("defer", server:setoption("tcp-defer-accept", 1))
  show("v6only", socket.tcp6():setoption("ipv6-v6only", false))
  show("v6only", socket.tcp4():setoption("ipv6-v6only", false))
  for _, name in ipairs { "error", "nothing", "ipv6-v6only" } do
    try("set " .. name, client.setoption, client, name, true)
    try("get " .. name, client.getoption, client, name)
  end
  try("no name", client.setoption, client)
  client:close()
  served:close()
  server:close()
end

-- ---- connecting and listening ---------------------------------------------

do
  local server = socket.tcp4()
  show("bind", server:bind("127.0.0.1", 0), server:listen())
  local host, port, family = server:getsockname()
  show("bound", host, type(port), family, server:getpeername())
  local taken = socket.tcp()
  show("taken", taken:bind("127.0.0.1", port))
  show("no such address", taken:bind("192.0.2.1", 0))
  show("no such port", taken:bind("127.0.0.1", "no-such-port"))
  try("no port", taken.bind, taken, "127.0.0.1")
  local any = socket.tcp4()
  show("any", any:bind("*", 0), (any:getsockname()))
  any:close()
  local local4 = socket.tcp()
  show("from", local4:bind("127.0.0.2", 0), local4:connect("127.0.0.1", port))
  local served = server:accept()
  show("from", (served:getpeername()))
  show("again", local4:connect("127.0.0.1", port))
  local4:close()
  served:close()
  show("connect", (tostring(socket.connect("127.0.0.1", port, "127.0.0.3", 0))
    :gsub("0x%x+", "POINTER")))
  served = server:accept()
  show("from", (served:getpeername()))
  served:close()
  show("from elsewhere", socket.connect("127.0.0.1", port, "192.0.2.1", 0))
  show("wrong family", socket.tcp6():connect("127.0.0.1", port))
  try("no port", socket.connect, "127.0.0.1")
  try("no family", socket.connect, "127.0.0.1", port, nil, nil, "ipx")
  server:close()
  local nobody = socket.tcp()
  show("refused", nobody:connect("127.0.0.1", port))
  show("refused", nobody)
  show("refused", socket.connect("127.0.0.1", port))
  nobody:close()
  local hasty = socket.tcp4()
  hasty:settimeout(0)
  show("at once", hasty:connect("192.0.2.1", 9))
  hasty:close()
  show("no such name", socket.tcp():connect("no.such.name.invalid", 9))
  show("no such service", socket.tcp():connect("127.0.0.1", "no-such-port"))
  show("four", socket.tcp4():getfamily(), socket.tcp6():getfamily())
  local six = assert(socket.bind("::1", 0))
  host, port, family = six:getsockname()
  show("six", host, type(port), family, six:getfamily())
  local client = socket.tcp()
  show("six", client:connect("::1", port), (client:getpeername()),
    select(3, client:getpeername()), client:getfamily())
  served = six:accept()
  show("six", served:getfamily(), select(3, served:getsockname()))
  client:close()
  served:close()
  six:close()
end

-- ---- select ---------------------------------------------------------------

do
  local client, served, server = join()
  words[client], words[served], words[server] = "CLIENT", "SERVED", "SERVER"
  show("nothing", socket.select({ served }, nil, 0))
  show("nothing", socket.select({ served, client, server }, {}, 0.05))
  show("nothing", socket.select(nil, nil, 0.01))
  show("write", socket.select({ served }, { client, served }, 1))
  client:send("one\ntwo\n")
  show("read", socket.select({ served, client }, nil, 1))
  show("both", socket.select({ served, client }, { client }))
  show("line", served:receive())
  show("dirty", served:dirty(), socket.select({ client, served }, nil, 5))
  show("dirty", socket.select({ client, served }, { served }, 5))
  local wrapped = { getfd = function() return served:getfd() end,
                    dirty = function() return served:dirty() end }
  words[wrapped] = "WRAPPED"
  show("wrapped", socket.select({ wrapped }, nil, 5))
  show("line", served:receive())
  client:send("x")
  show("wrapped", socket.select({ wrapped }, { wrapped }, 5))
  served:receive(1)
  local other = socket.connect("127.0.0.1",
      (select(2, server:getsockname())))
  show("accept", socket.select({ server, served }, nil, 1))
  server:accept():close()
  other:close()
  client:shutdown("send")
  show("end", socket.select({ served }, nil, 1))
  show("closed", served:close(), socket.select({ served }, nil, 0.01))
  local empty = { getfd = function() end }
  words[empty] = "EMPTY"
  show("no descriptor", socket.select({ empty }, nil, 0.01))
  try("wrong", socket.select, 1)
  try("wrong", socket.select, {}, {}, "x")
  client:close()
  server:close()
end

-- ---- exceptions, and what stands on them ----------------------------------

do
  show("skip", socket.skip(1, "a", "b", "c"))
  show("skip", socket.skip(0, "a"))
  show("skip", socket.skip(5, "a"))
  try("skip", socket.skip)
  local ended = 0
  local check = socket.newtry(function() ended = ended + 1 end)
  local f = socket.protect(function(...)
    return "did", check(...)
  end)
  show("protect", f(1, 2, 3))
  show("protect", f(nil, "why", "more"))
  show("protect", f(false, { 1 }))
  show("protect", f(nil))
  show("finalized", ended)
  show("nested", socket.protect(function()
    return "inner", f(nil, "inside")
  end)())
  try("raise", socket.protect(function() error("a real one") end))
  try("raise", socket.protect(function() error({ 5 }) end))
  try("try", socket.try, nil, "thrown")
  show("try", socket.try("kept", 2))
  show("metatable", getmetatable(select(2, pcall(socket.try, nil, "x"))))
  show("choose", pcall(socket.sink, "nothing"))
end

do
  local client, served, server = join()
  local sink = {}
  local text = ("line of text\n"):rep(1000)
  show("pump", ltn12.pump.all(ltn12.source.string(text),
    socket.sink("close-when-done", client)))
  show("pump", ltn12.pump.all(socket.source("until-closed", served),
    (ltn12.sink.table(sink))), table.concat(sink) == text)
  server:close()
  client, served, server = join()
  client:send("0123456789")
  sink = {}
  show("pump", ltn12.pump.all(socket.source("by-length", served, 5),
    ltn12.sink.chain(mime.encode("base64"), (ltn12.sink.table(sink)))))
  show("encoded", table.concat(sink))
  client:close()
  served:close()
  server:close()
end

do
  local list = socket.dns.getaddrinfo("127.0.0.1")
  show("getaddrinfo", list[1])
  show("getaddrinfo", socket.dns.getaddrinfo("::1")[1])
  show("getaddrinfo", socket.dns.getaddrinfo("no.such.name.invalid"))
  show("toip", (socket.dns.toip("localhost")))
  show("toip", socket.dns.toip("no.such.name.invalid"))
  show("tohostname", (socket.dns.tohostname("127.0.0.1")))
  show("getnameinfo", socket.dns.getnameinfo("127.0.0.1"))
  show("getnameinfo", socket.dns.getnameinfo("127.0.0.1", "80"))
  show("getnameinfo", socket.dns.getnameinfo("no.such.name.invalid"))
  show("gethostname", (socket.dns.gethostname()))
  try("toip", socket.dns.toip)
  try("getnameinfo", socket.dns.getnameinfo)
end

return table.concat(lines, "\n")
