-- SPDX-License-Identifier: MIT
--
-- Tunnels: the agent dials out, as ours does.

local h = require("harness")
local programs = require("programs")

local list = {}

local function system(entry)
  table.insert(list, entry)
end

local SSHD <const> = [[
ListenAddress 127.0.0.1
Port PORT
HostKey KEYS/host
AuthorizedKeysFile KEYS/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
]]

-- With `session`, for what it is told to run there, it switches Nagle's
-- algorithm off at both ends; with -N it never does.
local function start_ssh(s, session)
  local port, public = s:port("CONTROL"), s:port("PUBLIC")
  if h.sys.uid() == 0 then
    h.output_of({ "mkdir", "-p", "-m", "755", "/run/sshd" })
  end
  local text = SSHD:gsub("%u%u%u%u", { PORT = tostring(port),
    KEYS = s.material })
  local path = s:file("sshd.conf", text)
  s:await(s:hop({ h.which("sshd"), "-D", "-e", "-f", path }), port)
  local host, far = s:far(port)
  local command = { "ssh", "-F", "none", "-i", s.material .. "/user",
    "-p", tostring(far), "-c", "aes128-gcm@openssh.com",
    "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
    "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
    "-o", "ExitOnForwardFailure=yes", "-R",
    ("127.0.0.1:%d:127.0.0.1:%d"):format(public, s.backend), host,
    session or "-N", stdin = session and "pipe" }
  s:await(s:hop(command), public)
  return public
end

system {
  name = "ssh -R", kind = "tunnel", secret = "SSH",
  programs = { "ssh", "sshd", "ssh-keygen" }, flag = "-V",
  says = "OpenSSH_([%w.]+)",
  start = start_ssh,
}

system {
  name = "ssh -R, session", kind = "tunnel", secret = "SSH",
  programs = { "ssh", "sshd", "ssh-keygen" }, flag = "-V",
  says = "OpenSSH_([%w.]+)",
  start = function(s)
    return start_ssh(s, "cat")
  end,
}

local RATHOLE <const> = { server = [[
[server]
bind_addr = "127.0.0.1:CONTROL"
default_token = "benchmark"
[server.transport]
type = "TYPE"
[server.transport.tcp]
nodelay = NODELAY
SECRET
[server.services.hop]
bind_addr = "127.0.0.1:PUBLIC"
nodelay = NODELAY
]], client = [[
[client]
remote_addr = "127.0.0.1:CONTROL"
default_token = "benchmark"
[client.transport]
type = "TYPE"
[client.transport.tcp]
nodelay = NODELAY
SECRET
[client.services.hop]
local_addr = "127.0.0.1:BACKEND"
nodelay = NODELAY
]] }

-- Its documents advise `nodelay` for latency, and none for bandwidth.
local function start_rathole(s, kind, secrets, nodelay)
  local control, public = s:port("CONTROL"), s:port("PUBLIC")
  for _, side in ipairs({ "server", "client" }) do
    local _, port = "", control
    if side == "client" then
      _, port = s:far(control)
    end
    local text = RATHOLE[side]:gsub("%u+", { TYPE = kind,
      CONTROL = tostring(port), PUBLIC = tostring(public),
      BACKEND = tostring(s.backend), SECRET = secrets[side] or "",
      NODELAY = tostring(nodelay) }):gsub("\n\n", "\n")
    local hop = s:hop({ programs.path("rathole"), "--" .. side,
      s:file(side .. ".toml", text), env = { RUST_LOG = "error" },
      stdout = "memory" })
    if side == "server" then
      s:await(hop, control)
    else
      s:await(hop, public)
    end
  end
  return public
end

local function rathole_secrets(s)
  return {
    server = ('[server.transport.tls]\npkcs12 = "%s/cert.pfx"\n' ..
      'pkcs12_password = "benchmark"'):format(s.material),
    client = ('[client.transport.tls]\ntrusted_root = "%s/cert.pem"\n' ..
      'hostname = "localhost"'):format(s.material),
  }
end

for _, variant in ipairs({
  { "", nodelay = true }, { ", bulk", only = { "throughput" } },
}) do
  system {
    name = "rathole" .. variant[1], kind = "tunnel", programs = { "rathole" },
    flag = "--version", only = variant.only,
    start = function(s)
      return start_rathole(s, "tcp", {}, variant.nodelay or false)
    end,
  }
  system {
    name = "rathole, TLS" .. variant[1], kind = "tunnel", secret = "TLS",
    programs = { "rathole", "openssl" }, flag = "--version",
    only = variant.only,
    start = function(s)
      return start_rathole(s, "tls", rathole_secrets(s),
        variant.nodelay or false)
    end,
  }
end

local BORE_PORT <const> = 7835 -- nobody can choose another

system {
  name = "bore", kind = "tunnel", programs = { "bore" },
  flag = "--version",
  start = function(s)
    local public = s:port("PUBLIC")
    s:await(s:hop({ programs.path("bore"), "server", "--bind-addr", "127.0.0.1",
      stdout = "memory" }), BORE_PORT)
    local host = s:far(BORE_PORT, s.delay > 0 and "127.0.0.2" or nil)
    s:await(s:hop({ programs.path("bore"), "local", "--local-host", "127.0.0.1",
      "--to", host, "--port", tostring(public), tostring(s.backend),
      stdout = "memory" }), public)
    return public
  end,
}

local FRP <const> = { frps = [[
bindAddr = "127.0.0.1"
bindPort = CONTROL
proxyBindAddr = "127.0.0.1"
transport.tcpMux = MUXED
transport.maxPoolCount = 5
SECRET
log.level = "error"
]], frpc = [=[
serverAddr = "127.0.0.1"
serverPort = CONTROL
transport.tcpMux = MUXED
transport.poolCount = 5
SECRET
log.level = "error"
[[proxies]]
name = "hop"
type = "tcp"
localIP = "127.0.0.1"
localPort = BACKEND
remotePort = PUBLIC
]=] }

-- Over one connection it is slower in bulk, and faster where each of many had
-- to begin with TLS.
local function start_frp(s, secrets, muxed)
  local control, public = s:port("CONTROL"), s:port("PUBLIC")
  for _, side in ipairs({ "frps", "frpc" }) do
    local _, port = "", control
    if side == "frpc" then
      _, port = s:far(control)
    end
    local text = FRP[side]:gsub("%f[%u]%u%u%u%u+", {
      CONTROL = tostring(port), PUBLIC = tostring(public),
      BACKEND = tostring(s.backend), SECRET = secrets[side],
      MUXED = tostring(muxed or false) })
    s:await(s:hop({ programs.path(side), "-c", s:file(side .. ".toml", text),
      stdout = "memory" }), side == "frps" and control or public)
  end
  return public
end

system {
  name = "frp", kind = "tunnel", programs = { "frps", "frpc" },
  flag = "--version",
  start = function(s)
    return start_frp(s, { frps = "transport.tls.force = false",
      frpc = "transport.tls.enable = false" })
  end,
}

local function start_frp_tls(s, muxed)
  return start_frp(s, {
    frps = ('transport.tls.certFile = "%s/cert.pem"\n' ..
      'transport.tls.keyFile = "%s/key.pem"'):format(s.material, s.material),
    frpc = ('transport.tls.enable = true\n' ..
      'transport.tls.trustedCaFile = "%s/cert.pem"\n' ..
      'transport.tls.serverName = "localhost"'):format(s.material),
  }, muxed)
end

system {
  name = "frp, TLS", kind = "tunnel", secret = "TLS",
  programs = { "frps", "frpc", "openssl" }, flag = "--version",
  start = start_frp_tls,
}

system {
  name = "frp, TLS, muxed", kind = "tunnel", secret = "TLS",
  programs = { "frps", "frpc", "openssl" }, flag = "--version",
  only = { "connections", "first byte" },
  start = function(s)
    return start_frp_tls(s, true)
  end,
}

system {
  name = "chisel", kind = "tunnel", secret = "SSH", programs = { "chisel" },
  flag = "--version",
  start = function(s)
    local control, public = s:port("CONTROL"), s:port("PUBLIC")
    s:await(s:hop({ programs.path("chisel"), "server", "--host", "127.0.0.1",
      "--port", tostring(control), "--reverse" }), control)
    local host, far = s:far(control)
    s:await(s:hop({ programs.path("chisel"), "client",
      ("http://%s:%d"):format(host, far),
      ("R:127.0.0.1:%d:127.0.0.1:%d"):format(public, s.backend) }), public)
    return public
  end,
}

return list
