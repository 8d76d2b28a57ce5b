-- SPDX-License-Identifier: MIT
--
-- Two proxies in a row. Their second hop has to be reachable from the first,
-- which an agent need not be: they are here for how fast they are.

local h = require("harness")
local programs = require("programs")

local list = {}

local function system(entry)
  table.insert(list, entry)
end

-- Two of the same: the first leads to the second, that one to the backend.
-- start(IN, OUT, HOP) starts one that listens on IN.
local function twice(s, start)
  local public, middle = s:port("PUBLIC"), s:port("MIDDLE")
  s:await(start(middle, s.backend, 2), middle)
  local _, far = s:far(middle)
  s:await(start(public, far, 1), public)
  s.hops[1], s.hops[2] = s.hops[2], s.hops[1]
  return public
end

local HAPROXY <const> = [[
global
  maxconn 6000
GLOBAL
defaults
  mode tcp
  timeout connect 5s
  timeout client 10m
  timeout server 10m
DEFAULTS
listen hop
  bind 127.0.0.1:IN BIND
  server next 127.0.0.1:OUT SERVER
]]

local function start_haproxy(s, settings)
  return twice(s, function(from, to, hop)
    local own = settings[hop] or settings
    local text = HAPROXY:gsub("%u+", { GLOBAL = own.global or "",
      DEFAULTS = own.defaults or "", BIND = own.bind or "",
      SERVER = own.server or "", IN = tostring(from), OUT = tostring(to) })
      :gsub(" *\n+", "\n")
    local path = s:file(("haproxy%d.cfg"):format(hop), text)
    return s:hop({ "haproxy", "-db", "-f", path, stdout = "memory" })
  end)
end

system {
  name = "haproxy", kind = "proxy", programs = { "haproxy" },
  flag = "-v",
  start = function(s)
    return start_haproxy(s, { defaults = "  option splice-auto" })
  end,
}

system {
  name = "haproxy, forced", kind = "proxy", programs = { "haproxy" },
  flag = "-v",
  start = function(s)
    return start_haproxy(s, {
      global = "  tune.bufsize 65536\n  tune.pipesize 1048576",
      defaults = "  option splice-request\n  option splice-response",
    })
  end,
}

local NGINX <const> = [[
daemon off;
pid DIR/nginx.pid;
error_log DIR/error.log crit;
MODULE
worker_processes auto;
worker_rlimit_nofile 20000;
events { worker_connections 10100; }
stream {
  proxy_buffer_size 64k;
  proxy_half_close on;
  server {
    listen 127.0.0.1:IN reuseport;
    proxy_pass 127.0.0.1:OUT;
  }
}
]]

system {
  name = "nginx", kind = "proxy", programs = { "nginx" },
  flag = "-v",
  start = function(s)
    return twice(s, function(from, to, hop)
      local name = ("nginx%d.conf"):format(hop)
      local text = NGINX:gsub("%u+", { MODULE = programs.nginx_stream(),
        DIR = s.directory .. "/" .. hop, IN = tostring(from),
        OUT = tostring(to) })
      h.output_of({ "mkdir", "-p", s.directory .. "/" .. hop })
      return s:hop({ h.which("nginx"), "-e", s.directory .. "/error.log", "-c",
        s:file(name, text) })
    end)
  end,
}

system {
  name = "socat", kind = "proxy", programs = { "socat" },
  flag = "-V",
  most = { 1000, "a process for each connection and hop" },
  start = function(s)
    return twice(s, function(from, to)
      return s:hop({ "socat", "-b", "65536", "-t", "60",
        ("TCP4-LISTEN:%d,bind=127.0.0.1,reuseaddr,nodelay,backlog=1024,fork")
        :format(from), ("TCP4:127.0.0.1:%d,nodelay"):format(to) })
    end)
  end,
}

-- ---- proxies with TLS between them ------------------------------------------

local SUITE <const> = "TLS_AES_128_GCM_SHA256"

system {
  name = "haproxy, TLS", kind = "proxy", secret = "TLS",
  programs = { "haproxy", "openssl" }, flag = "-v",
  start = function(s)
    local tls = "ssl-min-ver TLSv1.3 ciphersuites " .. SUITE
    return start_haproxy(s, {
      { server = "ssl verify required ca-file " .. s.material ..
        "/cert.pem sni str(localhost) " .. tls },
      { bind = "ssl crt " .. s.material .. "/both.pem " .. tls },
    })
  end,
}

local STUNNEL <const> = programs.path("stunnel4") and "stunnel4" or "stunnel"
local STUNNEL_CONF <const> = [[
foreground = yes
pid =
debug = err
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
sslVersion = TLSv1.3
ciphersuites = SUITE
[hop]
ROLE
accept = 127.0.0.1:IN
connect = 127.0.0.1:OUT
]]

system {
  name = "stunnel", kind = "proxy", secret = "TLS",
  programs = { STUNNEL, "openssl" }, flag = "-version",
  says = "stunnel (%S+)",
  start = function(s)
    local roles = {
      "client = yes\nverifyChain = yes\nCAfile = " .. s.material ..
        "/cert.pem\ncheckHost = localhost",
      "cert = " .. s.material .. "/both.pem",
    }
    return twice(s, function(from, to, hop)
      local text = STUNNEL_CONF:gsub("%u+", { ROLE = roles[hop], SUITE = SUITE,
        IN = tostring(from), OUT = tostring(to) })
      return s:hop({ STUNNEL, s:file(("stunnel%d.conf"):format(hop), text) })
    end)
  end,
}

return list
