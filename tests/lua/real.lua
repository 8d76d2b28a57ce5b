-- SPDX-License-Identifier: MIT
--
-- Well-known programs for tests to put behind `expose`: each is started with a
-- configuration of its own in a directory of its own, on a free port, without
-- any file of the system's.

local h = require("harness")
local sys = h.sys

local real = {}

-- A port nobody listens on. Outside the range the kernel hands out by itself,
-- so that nobody gets it by chance before the program does; or between two.
function real.free_port(low, high)
  for _ = 1, 100 do
    local port = math.random(low or 12000, high or 31000)
    local listener = sys.listen({ host = "0.0.0.0", port = port })
    if listener then
      listener:close()
      return port
    end
  end
  error("no free port")
end

-- Waits until a program accepts connections.
function real.await_port(process, port, host)
  h.wait_until(process.name .. " listens", function()
    local socket = sys.connect(host or "127.0.0.1", port)
    if socket then
      socket:close()
      return true
    end
    if not process:running() then
      error(process.name .. " ended: " .. process:text() .. process:log())
    end
  end)
end

local nginx_conf = [[
daemon off;
master_process off;
pid DIR/nginx.pid;
error_log DIR/error.log;
events { worker_connections 1024; }
http {
  log_format seen '$proxy_protocol_addr $proxy_protocol_port $remote_addr '
                  '$status "$request"';
  access_log DIR/access.log seen;
  client_body_temp_path DIR/body;
  proxy_temp_path DIR/proxy;
  fastcgi_temp_path DIR/fastcgi;
  scgi_temp_path DIR/scgi;
  uwsgi_temp_path DIR/uwsgi;
  client_max_body_size 0;
  keepalive_requests 1000000;
  server {
    LISTEN
    root DIR/www;
    location /upload/ { dav_methods PUT; }
  }
}
]]

-- nginx on 127.0.0.1 and ::1 at `port`, and at `path`, a unix socket; all three
-- want a PROXY header where `proxy` is true. `www` is a directory it serves and
-- takes uploads into; seen() is its access log, one {address, port, remote,
-- status} for each request.
function real.start_nginx(proxy)
  h.need("nginx")
  local dir = h.tmpdir()
  local port = real.free_port()
  local path = dir .. "/socket"
  local listen = {}
  for _, where in ipairs({ "127.0.0.1:" .. port, "[::1]:" .. port,
                           "unix:" .. path }) do
    table.insert(listen, ("listen %s%s;"):format(
      where, proxy and " proxy_protocol" or ""))
  end
  local conf = nginx_conf:gsub("LISTEN", table.concat(listen, "\n    "))
  h.output_of({ "mkdir", "-p", dir .. "/www/upload" })
  h.write_file(dir .. "/nginx.conf", (conf:gsub("DIR", dir)))
  local nginx = h.start({ h.which("nginx"), "-p", dir, "-e",
    dir .. "/error.log", "-c", dir .. "/nginx.conf", name = "nginx" })
  real.await_port(nginx, port)
  nginx.port, nginx.path, nginx.www = port, path, dir .. "/www"
  nginx.seen = function()
    local seen = {}
    for line in h.read_file(dir .. "/access.log"):gmatch("[^\n]+") do
      local address, from_port, remote, status =
        line:match("^(%S+) (%S+) (%S+) (%d+) ")
      table.insert(seen, { address = address, port = from_port,
        remote = remote, status = status })
    end
    return seen
  end
  return nginx
end

-- sshd on 127.0.0.1 with keys of its own, for whoever runs the test, `user`;
-- `options` are what ssh and scp have to be told. Skips the test where sshd
-- does not let this user in even without a relay between.
function real.start_sshd()
  h.need("sshd", "ssh", "ssh-keygen")
  if sys.uid() == 0 then
    -- What the system's own start of sshd makes; sshd insists on it.
    h.output_of({ "mkdir", "-p", "-m", "755", "/run/sshd" })
  end
  local dir = h.tmpdir()
  local port = real.free_port()
  for _, name in ipairs({ "host", "user" }) do
    h.output_of({ "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
      dir .. "/" .. name })
  end
  h.write_file(dir .. "/sshd.conf", ([[
ListenAddress 127.0.0.1
Port PORT
HostKey DIR/host
AuthorizedKeysFile DIR/user.pub
PidFile DIR/sshd.pid
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
PrintMotd no
Subsystem sftp internal-sftp
]]):gsub("DIR", dir):gsub("PORT", port) .. "")
  local sshd = h.start({ h.which("sshd"), "-D", "-e", "-f",
    dir .. "/sshd.conf", name = "sshd" })
  real.await_port(sshd, port)
  sshd.port = port
  sshd.user = h.output_of({ "id", "-un" }):match("%S+")
  sshd.options = { "-F", "none", "-i", dir .. "/user" }
  for _, option in ipairs({ "IdentitiesOnly=yes", "BatchMode=yes",
    "StrictHostKeyChecking=no", "UserKnownHostsFile=" .. dir .. "/known",
    "LogLevel=ERROR" }) do
    table.insert(sshd.options, "-o")
    table.insert(sshd.options, option)
  end
  local direct = h.run(real.ssh(sshd, port, { "true" }))
  if direct.status ~= 0 then
    h.skip("sshd lets nobody in here: " .. direct.stderr .. sshd:log())
  end
  return sshd
end

-- What to run for a command at the sshd that is reached through `port`. What
-- else `command` holds (stdin, stdout, …) goes along.
function real.ssh(sshd, port, command, ...)
  local words = { "ssh", "-l", sshd.user, "-p", port, ... }
  table.move(sshd.options, 1, #sshd.options, #words + 1, words)
  table.insert(words, "127.0.0.1")
  for key, value in pairs(command) do
    words[type(key) == "string" and key or #words + 1] = value
  end
  return words
end

-- sshd's own processes for a connection outlive it by a moment, and would be
-- found as left behind: to be called last.
function real.await_sessions_end(sshd)
  local path = ("/proc/%d/task/%d/children"):format(sshd:pid(), sshd:pid())
  h.wait_until("sshd has no session left", function()
    return h.read_file(path) == ""
  end)
end

-- redis-server on 127.0.0.1 at `port` and at `path`, with nothing saved.
function real.start_redis()
  h.need("redis-server", "redis-cli", "redis-benchmark")
  local dir = h.tmpdir()
  local port = real.free_port()
  local redis = h.start({ "redis-server", "--port", port, "--bind",
    "127.0.0.1", "--unixsocket", dir .. "/socket", "--save", "",
    "--appendonly", "no", "--dir", dir, "--daemonize", "no" })
  real.await_port(redis, port)
  redis.port, redis.path = port, dir .. "/socket"
  return redis
end

-- The SHA-256 of a file.
function real.digest(path)
  return h.output_of({ "sha256sum", path, seconds = 60 }):match("^%x+")
end

-- A file of so many bytes, the same for the same seed.
function real.make_file(path, count, seed)
  local file = assert(io.open(path, "wb"))
  for at = 0, count - 1, 1 << 20 do
    assert(file:write(sys.pattern(seed, at, math.min(1 << 20, count - at))))
  end
  assert(file:close())
  return path
end

return real
