-- SPDX-License-Identifier: MIT
--
-- LuaSocket's http, as Debian installs it, in a policy, against nginx; and
-- TLS: whom a socket believes, and how it ends.

local lu = require("luaunit")
local h = require("harness")
local policy = require("policy")
local real = require("real")
local certs = require("certs")
local sys = h.sys

local T = { limit = 60 }

-- ---- servers ----------------------------------------------------------------

local head = [[
daemon off;
master_process off;
pid DIR/nginx.pid;
error_log DIR/error.log;
events { worker_connections 256; }
http {
  access_log DIR/access.log;
  client_body_temp_path DIR/body;
  proxy_temp_path DIR/proxy;
  fastcgi_temp_path DIR/fastcgi;
  scgi_temp_path DIR/scgi;
  uwsgi_temp_path DIR/uwsgi;
  ssl_session_tickets off;
  root DIR/www;
]]

local site = [[
    location /upload/ { dav_methods PUT; }
    location /chunked/ { alias DIR/www/; ssi on; ssi_types *; }
    location /old { return 302 /page; }
    location /to-plain { return 301 http://127.0.0.1:PORT/page; }
    location /to-tls { return 301 https://localhost:TLS/page; }
    location /loop { return 302 /loop; }
    location /echo {
      proxy_pass http://127.0.0.1:PORT/show;
      proxy_set_header X-Body $request_body;
    }
    location /show { return 200 $request_method-$http_x_body; }
]]

-- nginx without TLS at `port`, and with it at one port for each certificate of
-- `signed`, by its name.
local function start_nginx(signed)
  h.need("nginx")
  local dir = h.tmpdir()
  local server = { port = real.free_port() }
  local blocks = { ("server { listen 127.0.0.1:%d;\n%s}"):format(
    server.port, site) }
  for name, pair in pairs(signed or {}) do
    server[name] = real.free_port()
    table.insert(blocks, ([[server {
      listen 127.0.0.1:%d ssl;
      listen [::1]:%d ssl;
      ssl_certificate %s;
      ssl_certificate_key %s;
      %s}]]):format(server[name], server[name], pair.cert, pair.key, site))
  end
  local conf = (head .. table.concat(blocks, "\n") .. "}\n"):gsub("%u+", {
    DIR = dir, PORT = server.port, TLS = server.good or 1 })
  h.output_of({ "mkdir", "-p", dir .. "/www/upload" })
  h.write_file(dir .. "/www/page", "the page\n")
  server.www, server.log = dir .. "/www", dir .. "/access.log"
  h.write_file(dir .. "/nginx.conf", conf)
  local nginx = h.start({ h.which("nginx"), "-p", dir, "-e",
    dir .. "/error.log", "-c", dir .. "/nginx.conf", name = "nginx" })
  real.await_port(nginx, server.port)
  return server
end

-- The body sees the server's ports as locals, and `http` and `ltn12`.
local function run(server, body, names)
  local locals = {}
  for name, value in pairs(names or {}) do
    table.insert(locals, ("local %s = %q"):format(name, value))
  end
  for name, value in pairs(server) do
    if math.type(value) then
      table.insert(locals, ("local %s = %d"):format(name, value))
    end
  end
  return policy.run(([[
    local http, ltn12 = require "socket.http", require "ltn12"
    local socket = require "socket"
    %s
    local function at(port, path, scheme, host)
      return ("%%s://%%s:%%d/%%s"):format(scheme or "http", host or "127.0.0.1",
        port, path)
    end
    local function refused(words, url)
      local body, why = http.request(url)
      assert(body == nil and tostring(why):find(words, 1, true),
        tostring(why) .. ", not " .. words)
    end
    %s]]):format(table.concat(locals, "\n"), body))
end

-- ---- http -------------------------------------------------------------------

function T.test_http()
  local server = start_nginx()
  real.make_file(server.www .. "/big", 3 << 20, 5)
  run(server, [[
    local body, code, headers, status = http.request(at(port, "page"))
    assert(body == "the page\n" and code == 200, code)
    assert(headers["content-length"] == "9" and status == "HTTP/1.1 200 OK")
    body, code, headers = http.request(at(port, "chunked/page"))
    assert(body == "the page\n" and code == 200)
    assert(headers["transfer-encoding"] == "chunked")
    body, code = http.request(at(port, "nothing"))
    assert(code == 404 and body:find("404 Not Found"))
    body, code, headers = http.request(at(port, "old"))
    assert(body == "the page\n" and code == 200)
    assert(headers.location:find("/page$"))
    local result
    result, code = http.request { url = at(port, "old"), redirect = false }
    assert(result == 1 and code == 302)
    body, code = http.request(at(port, "loop"))
    assert(code == 302)
    body, code = http.request(at(port, "echo"), "a=1&b=2")
    assert(code == 200 and body == "GET-a=1&b=2" or body == "POST-a=1&b=2")
    result, code, headers = http.request { url = at(port, "page"),
      method = "HEAD" }
    assert(result == 1 and code == 200 and headers["content-length"] == "9")
    local sent = ("0123456789"):rep(100000)
    result, code = http.request { url = at(port, "upload/new"),
      method = "PUT", source = ltn12.source.string(sent),
      headers = { ["content-length"] = #sent } }
    assert(result == 1 and code == 201, code)
    local parts = {}
    result, code = http.request { url = at(port, "upload/new"),
      sink = ltn12.sink.table(parts) }
    assert(code == 200 and table.concat(parts) == sent)
    result, code = http.request { url = at(port, "upload/chunked"),
      method = "PUT", source = ltn12.source.string(sent) }
    assert(result == 1 and code == 201, code)
    body = http.request(at(port, "big"))
    assert(#body == 3 << 20)
    refused("connection refused", at(1, ""))
    refused("host or service not provided", "http://no.such.name.invalid/")
  ]])
  lu.assertEquals(#h.read_file(server.www .. "/upload/chunked"), 1000000)
end

function T.test_http_time_out()
  local silent = assert(sys.listen())
  run({ silent = silent:port() }, [[
    http.TIMEOUT = 0.1
    local began = socket.gettime()
    local result, why = http.request(at(silent, "page"))
    -- LuaSocket's http takes it for the status 408
    assert(result == "" and why == 408 or result == nil and why == "timeout",
      why)
    assert(socket.gettime() - began < 1.5)
  ]])
  silent:close()
end

function T.test_http_in_a_hook_holds_up_nobody()
  local slow = assert(sys.listen())
  local relay, agent = policy.scene(([[
    local http = require "socket.http"
    return { visitor = function(conn)
      if relay.kv.incr("n") > 20 then return end
      local body, code = http.request("http://127.0.0.1:%d/" .. conn.addr)
      return code == 200 and body == "come in"
    end }]]):format(slow:port()))
  local visitors = {}
  for i = 1, 20 do
    visitors[i] = h.connect(agent)
    visitors[i]:send("waited")
    visitors[i]:shutdown()
  end
  for _ = 1, 20 do
    lu.assertEquals(policy.ask(agent, "quick"), "quick")
  end
  for i = 1, 20 do
    local asked <close> = assert(slow:accept())
    lu.assertEquals(asked:recv_line():gsub("\r", ""),
      "GET /127.0.0.1 HTTP/1.1")
    local body = i % 2 == 0 and "come in" or "stay out"
    asked:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(
      #body, body))
    asked:shutdown()
    asked:discard()
  end
  local count = 0
  for i = 1, 20 do
    count = count + (visitors[i]:recv_all() == "waited" and 1 or 0)
    visitors[i]:close()
  end
  lu.assertEquals(count, 10)
  slow:close()
  relay:stop()
end

-- ---- https ------------------------------------------------------------------

local function need_tls()
  local text = policy.run([[
    local socket = require "socket"
    local s = socket.connect("127.0.0.1",
      (select(2, assert(socket.bind("127.0.0.1", 0)):getsockname())))
    print(select(2, pcall(s.starttls, s, 5)))]])
  if text:find("built without TLS", 1, true) then
    h.skip("the relay was built without TLS")
  end
end

local function signed_by(ca)
  return {
    good = ca:sign("good", "DNS:localhost,IP:127.0.0.1,IP:::1"),
    wrong = ca:sign("wrong", "DNS:elsewhere.test"),
    wild = ca:sign("wild", "DNS:*.host,DNS:l*"),
    late = ca:sign("late", "DNS:localhost,IP:127.0.0.1", -1),
  }
end

function T.test_https()
  need_tls()
  local ca, other = certs.authority(), certs.authority()
  local server = start_nginx(signed_by(ca))
  real.make_file(server.www .. "/big", 3 << 20, 5)
  local names = { ca = ca.path, other = other.path,
    none = ca.dir .. "/nothing.pem" }
  run(server, [[
    local https = require "ssl.https"
    local page = at(good, "page", "https", "localhost")
    -- nobody vouches for it
    refused("certificate verify failed", page)
    refused("certificate verify failed", { url = page, cafile = other })
    local result, code = http.request { url = page, cafile = ca }
    assert(result == 1 and code == 200, code)
    result, code = http.request { url = at(good, "page", "https"),
      cafile = ca }
    assert(result == 1 and code == 200, code)
    -- for all requests
    https.cafile = ca
    for _, host in ipairs { "localhost", "127.0.0.1", "[::1]" } do
      local body, status = http.request(at(good, "page", "https", host))
      -- LuaSocket's http leaves the brackets out of the Host field
      assert(body == "the page\n" and status == 200 or host == "[::1]" and
        status == 400, status)
    end
    refused("hostname mismatch", at(wrong, "page", "https", "localhost"))
    refused("IP address mismatch", at(wrong, "page", "https"))
    refused("mismatch", at(wild, "page", "https", "localhost"))
    refused("certificate has expired", at(late, "page", "https", "localhost"))
    refused("TLS: wrong version number", at(port, "page", "https"))
    refused("connection refused", at(1, "page", "https"))
    refused("cannot use '" .. none .. "'", { url = page, cafile = none })
    -- only who says so is not verified
    for _, no in ipairs { false, "none" } do
      result, code = http.request { verify = no,
        url = at(late, "page", "https", "localhost") }
      assert(result == 1 and code == 200, code)
    end
    for _, yes in ipairs { true, "peer", {} } do
      refused("certificate has expired", { verify = yes,
        url = at(late, "page", "https", "localhost") })
    end
    -- more than a page
    local body = https.request(at(good, "big", "https", "localhost"))
    assert(#body == 3 << 20)
    body, code = http.request(at(good, "chunked/page", "https", "localhost"))
    assert(body == "the page\n" and code == 200)
    body, code = https.request(at(good, "echo", "https", "localhost"), "b=1")
    assert(code == 200 and body:find("%-b=1$"), body)
    local sent = ("0123456789"):rep(100000)
    result, code = http.request { method = "PUT",
      url = at(good, "upload/new", "https", "localhost"),
      source = ltn12.source.string(sent),
      headers = { ["content-length"] = #sent } }
    assert(result == 1 and code == 201, code)
    assert(http.request(at(good, "upload/new", "https", "localhost")) == sent)
    -- redirects: up, and on, but not down
    body, code = http.request(at(port, "to-tls"))
    assert(body == "the page\n" and code == 200, code)
    body, code = http.request(at(good, "old", "https", "localhost"))
    assert(body == "the page\n" and code == 200, code)
    body, code = http.request(at(good, "to-plain", "https", "localhost"))
    assert(code == 301)
    -- a proxy would see a handshake that is not meant for it
    refused("through a proxy", { url = page, proxy = at(port, "") })
    http.PROXY = at(port, "")
    refused("through a proxy", page)
  ]], names)
  lu.assertEquals(#h.read_file(server.www .. "/upload/new"), 1000000)
end

-- ---- starttls ---------------------------------------------------------------

-- openssl s_server with a certificate, at `port`.
local function s_server(pair, ...)
  local port = real.free_port()
  local server = h.start({ stdin = "pipe", name = "s_server", "openssl",
    "s_server", "-accept", "127.0.0.1:" .. port, "-cert", pair.cert, "-key",
    pair.key, "-quiet", ... })
  real.await_port(server, port)
  server.port = port
  return server
end

function T.test_starttls_options()
  need_tls()
  local ca = certs.authority()
  local server = start_nginx(signed_by(ca))
  run(server, [[
    local function start(options, host)
      local s = relay.tcp()
      assert(s:connect(host or "127.0.0.1", good))
      return s, pcall(s.starttls, s, options)
    end
    local s, ok, done, why = start { host = "localhost", cafile = ca }
    assert(ok and done == true and why == nil, why)
    s:send("GET /page HTTP/1.0\r\n\r\n")
    assert(s:receive() == "HTTP/1.1 200 OK")
    assert(s:dirty())
    assert(s:receive("*a"):find("the page\n$"))
    assert(select(2, s:receive()) == "closed")
    ok, why = pcall(s.starttls, s, { host = "localhost", cafile = ca })
    assert(not ok and why:find("under TLS already"), why)
    assert(s:shutdown() == 1 and select(2, s:send("x")) == "closed")
    s:close()
    assert(select(2, s:starttls { host = "x" }) == "closed")
    -- the host that was connected to is what is verified
    s, ok, done, why = start({ cafile = ca }, "localhost")
    assert(ok and done == true, why)
    s, ok, done, why = start { host = "localhost.", cafile = ca }
    assert(ok and done == true, why)
    s, ok, done, why = start { host = "elsewhere.test", cafile = ca }
    assert(ok and not done and why:find("hostname mismatch"), why)
    assert(s:getfd() == -1)
    assert(select(2, s:receive()) == "closed")
    s, ok, why = start { hosst = "localhost" }
    assert(not ok and why:find("did you mean 'host'"), why)
    s, ok, why = start { cafile = {} }
    assert(not ok and why:find("'cafile' must be a string"), why)
    s, ok, why = start { alpn = {""}, cafile = ca }
    assert(not ok and why:find("'alpn' must be"), why)
    s, ok, done, why = start { host = ("x"):rep(300), cafile = ca }
    assert(ok and not done and why:find("bad host name"), why)
    ok, why = pcall(s.starttls, s)
    assert(not ok and why:find("table expected"), why)
    ok, why = pcall(relay.tcp().starttls, relay.tcp(), {})
    assert(not ok and why:find("tcp{client} expected"), why)
    -- a directory of authorities
    s, ok, done = start { host = "localhost", capath = "/nowhere" }
    assert(ok and done == nil)
  ]], { ca = ca.path })
end

function T.test_both_sides_are_verified_and_choose_a_protocol()
  need_tls()
  local ca = certs.authority()
  local pair = ca:sign("server", "DNS:localhost")
  local own = ca:sign("client", "DNS:client")
  local server = s_server(pair, "-Verify", "1", "-verify_return_error",
    "-CAfile", ca.path, "-alpn", "two,one", "-rev")
  run({ port = server.port }, [[
    local s = relay.tcp()
    assert(s:connect("127.0.0.1", port))
    local done, protocol = s:starttls { host = "localhost", cafile = ca,
      certificate = cert, key = key, alpn = { "one", "two" } }
    assert(done == true and protocol == "two", protocol)
    s:send("abc\n")
    assert(s:receive() == "cba")
    s:close()
    -- without: TLS 1.3 says so with the first answer
    s = relay.tcp()
    assert(s:connect("127.0.0.1", port))
    assert(s:starttls { host = "localhost", cafile = ca, alpn = "one" })
    s:send("abc\n")
    local line, why = s:receive()
    assert(line == nil and why:find("^TLS: .*certificate required"), why)
  ]], { ca = ca.path, cert = own.cert, key = own.key })
end

function T.test_a_cut_is_not_an_end()
  need_tls()
  local ca = certs.authority()
  local server = s_server(ca:sign("server", "DNS:localhost"))
  local relay = policy.relay(([[return { start = function()
    relay.spawn(function()
      local s = relay.tcp()
      assert(s:connect("127.0.0.1", %d))
      assert(s:starttls { host = "localhost", cafile = %q })
      s:send("ready\n")
      print("first", s:receive(5))
      print("received", s:receive("*a"))
      print("again", s:receive("*a"))
      s:close()
    end) end }]]):format(server.port, ca.path))
  server:wait_line("^ready$")
  server:write("half of a line\n")
  relay:wait_log("first half ")
  server:kill("KILL")
  relay:wait_log("received nil truncated of a line")
  relay:wait_log("again nil closed")
  relay:stop()
end

function T.test_words_from_before_tls_are_refused()
  need_tls()
  local plain = assert(sys.listen())
  local relay = policy.relay(([[return { start = function()
    relay.spawn(function()
      local s = relay.tcp()
      assert(s:connect("127.0.0.1", %d))
      assert(s:receive() == "ready")
      print("starttls", s:starttls { host = "localhost" })
      print("then", s:receive())
    end) end }]]):format(plain:port()))
  local peer = assert(plain:accept())
  peer:send("ready\ninjected\n")
  relay:wait_log("starttls nil tcp:starttls: there are bytes from before TLS")
  relay:wait_log("then nil closed")
  peer:close()
  plain:close()
  relay:stop()
end

function T.test_a_handshake_that_waits()
  need_tls()
  local plain = assert(sys.listen())
  local relay, agent = policy.still_scene(([[return {
    start = function() relay.spawn(function()
      local s = relay.tcp()
      s:settimeout(0.1)
      assert(s:connect("127.0.0.1", %d))
      print("starttls", s:starttls { host = "localhost" })
      print("left", s:getfd())
    end) end,
    visitor = function()
      local s = relay.tcp()
      assert(s:connect("127.0.0.1", %d))
      s:starttls { host = "localhost" }
    end }]]):format(plain:port(), plain:port()))
  relay:wait_log("starttls nil timeout")
  relay:wait_log("left %-1")
  plain:accept():close()
  local before = policy.sockets(relay)
  local visitor = h.connect(agent)
  local peer = assert(plain:accept())
  lu.assertEquals(peer:recv_exact(1), "\x16")
  visitor:reset()
  peer:discard()
  peer:close()
  policy.await_sockets(relay, before)
  visitor:close()
  plain:close()
  relay:stop()
end

function T.test_the_authorities_of_the_system()
  need_tls()
  local ca = certs.authority()
  local server = start_nginx({ good = ca:sign("good", "DNS:localhost") })
  local path = policy.write(([[return { start = function()
    local body, code = require("socket.http").request(
      "https://localhost:%d/page")
    assert(code == 200, code)
  end }]]):format(server.good))
  for file, status in pairs({ [ca.path] = 0, ["/dev/null"] = 1 }) do
    local result = h.run({ h.program("relay"), "0", "--check", "--script",
      path, env = { SSL_CERT_FILE = file } })
    lu.assertEquals(result.status, status, result.stderr)
  end
end

return T
