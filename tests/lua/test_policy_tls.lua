-- SPDX-License-Identifier: MIT
--
-- Many agents behind one port, as real TLS clients see it: openssl and curl
-- ask for a name and verify whom they reach, through scripts/sni_router.lua.
-- Once that is settled the bytes go by splice, as ever.

local lu = require("luaunit")
local h = require("harness")
local real = require("real")

local T = { limit = 120 }

local NAMES <const> = { "a.example", "b.example" }
local LARGE <const> = 8 << 20

-- A TLS server that serves the files of its directory, with a certificate of
-- its own that only it is trusted for.
local function start_server(name)
  local directory, port = h.tmpdir(), real.free_port()
  local path = directory .. "/" .. name
  h.output_of({ "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
    "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=" .. name,
    "-addext", "subjectAltName=DNS:" .. name, "-keyout", path .. ".key",
    "-out", path .. ".pem" })
  h.write_file(directory .. "/name", "this is " .. name .. "\n")
  real.make_file(directory .. "/large", LARGE, #name)
  local server = h.start({ "openssl", "s_server", "-accept",
    "127.0.0.1:" .. port, "-cert", path .. ".pem", "-key", path .. ".key",
    "-quiet", "-WWW", cwd = directory })
  real.await_port(server, port)
  return { port = port, name = name, trust = path .. ".pem",
           large = directory .. "/large" }
end

-- The relay with the router, and an agent for each server.
local function start_router(options)
  local port = real.free_port()
  local text = h.read_file(h.source .. "scripts/sni_router.lua")
  table.insert(options, "--script")
  table.insert(options, h.write_file(h.tmpdir() .. "/policy.lua",
    (text:gsub("PORT = %d+", "PORT = " .. port))))
  local relay = h.start_relay(options)
  local servers = {}
  for i, name in ipairs(NAMES) do
    servers[i] = start_server(name)
    h.start_expose(relay, servers[i].port, { "--name", name })
  end
  return relay, port, servers
end

local function curl(server, port, path, ...)
  return h.run({ "curl", "-sS", "--max-time", math.floor(h.seconds(30)),
    "--cacert", server.trust, "--resolve",
    ("%s:%d:127.0.0.1"):format(server.name, port),
    ("https://%s:%d/%s"):format(server.name, port, path), ... })
end

local function s_client(server, port, ...)
  local command = { "openssl", "s_client", "-connect", "127.0.0.1:" .. port,
    "-CAfile", server.trust, "-verify_return_error", "-quiet", ... }
  command.input = "GET /name HTTP/1.0\r\n\r\n"
  return h.run(command)
end

function T.test_each_name_leads_to_its_agent()
  h.need("openssl", "curl")
  local relay, port, servers = start_router({})
  for _, server in ipairs(servers) do
    local words = "this is " .. server.name .. "\n"
    lu.assertEquals(curl(server, port, "name").stdout, words)
    for _, version in ipairs({ "-tls1_2", "-tls1_3" }) do
      local result = s_client(server, port, "-servername", server.name,
        version)
      lu.assertStrContains(result.stdout, words, false, result.stderr)
    end
    relay:wait_log("visitor closed [^\n]*sni=" .. server.name)
  end
  -- Whoever asks for one name is not shown another's certificate.
  local other = s_client(servers[1], port, "-servername", servers[2].name)
  lu.assertStrContains(other.stderr, "verify error")
end

function T.test_no_name_or_a_strange_one_leads_nowhere()
  h.need("openssl")
  local relay, port, servers = start_router({})
  for word, options in pairs({
    ["nobody serves c.example"] = { "-servername", "c.example" },
    ["no server name"] = { "-noservername" },
  }) do
    local result = s_client(servers[1], port, table.unpack(options))
    lu.assertEquals({ result.status, result.stdout }, { 1, "" })
    relay:wait_log(word)
  end
end

-- ---- the bytes --------------------------------------------------------------

-- What the calls of a trace returned, summed by name.
local function sums_of(trace)
  local sums = {}
  for name, bytes in trace:gmatch("(%l+)%([^\n]*%) += (%d+)") do
    sums[name] = (sums[name] or 0) + tonumber(bytes)
  end
  return sums
end

local function start_trace(relay, path)
  local strace = h.start({ "strace", "-f", "-e",
    "trace=splice,read,readv,recvfrom,recvmsg", "-o", path, "-p",
    tostring(relay:pid()) })
  if not pcall(strace.wait_line, strace, "attached", 5, "stderr") then
    h.skip("strace may not look at others here")
  end
  return strace
end

function T.test_the_bytes_are_spliced()
  h.need("openssl", "curl", "strace")
  local relay, port, servers = start_router({ mode = "splice" })
  local path = h.tmpdir() .. "/trace"
  local strace = start_trace(relay, path)
  local copy = h.tmpdir() .. "/copy"
  local result = curl(servers[1], port, "large", "-o", copy)
  lu.assertEquals({ result.status, result.stderr }, { 0, "" })
  lu.assertEquals(real.digest(copy), real.digest(servers[1].large))
  strace:kill("INT") -- lets go of the relay
  strace:wait()
  local sums = sums_of(h.read_file(path))
  -- Into a pipe and out of it; and what is read is the hello, looked at.
  lu.assertTrue(sums.splice >= 2 * LARGE, sums.splice)
  lu.assertTrue((sums.recvfrom or 0) + (sums.recvmsg or 0) +
    (sums.read or 0) + (sums.readv or 0) < 65536, lu.prettystr(sums))
end

return T
