-- SPDX-License-Identifier: MIT
--
-- A certificate authority for one test, and what it signs; a relay with that,
-- and its agents.

local lu = require("luaunit")
local h = require("harness")

local certs = {}

local Authority = {}
Authority.__index = Authority

local ec = { "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes" }

local function openssl(words, ...)
  local line = { "openssl", table.unpack(words) }
  for _, list in ipairs({ ... }) do
    table.move(list, 1, #list, #line + 1, line)
  end
  h.output_of(line)
end

-- With `path`, its own certificate, and `key`. In a directory of the test's,
-- unless another is given.
function certs.authority(dir)
  h.need("openssl")
  dir = dir or h.tmpdir()
  local self = setmetatable({ dir = dir, path = dir .. "/ca.pem",
    key = dir .. "/ca.key" }, Authority)
  openssl({ "req", "-x509", "-subj", "/CN=Test authority", "-days", "30",
    "-keyout", self.key, "-out", self.path }, ec)
  return self
end

-- { cert =, key = }: paths, for these names ("DNS:a,IP:127.0.0.1"), valid for
-- so many days (30; -1: until yesterday). Its subject is /CN=name, or another.
function Authority:sign(name, names, days, subject)
  local base = ("%s/%s"):format(self.dir, name)
  h.write_file(base .. ".ext", "subjectAltName=" .. names .. "\n")
  openssl({ "req", "-subj", subject or "/CN=" .. name, "-keyout",
    base .. ".key", "-out", base .. ".csr" }, ec)
  openssl({ "x509", "-req", "-in", base .. ".csr", "-CA", self.path, "-CAkey",
    self.key, "-CAcreateserial", "-extfile", base .. ".ext",
    "-days", tostring(days or 30), "-out", base .. ".pem" })
  return { cert = base .. ".pem", key = base .. ".key" }
end

-- ---- a relay that has one ---------------------------------------------------

-- What the tests' relays are called.
certs.NAMES = "DNS:localhost,IP:127.0.0.1"

-- A tokens file with these ids; it and their tokens, by id.
function certs.tokens(ids)
  local file, tokens = h.tmpdir() .. "/tokens", {}
  for _, id in ipairs(ids) do
    tokens[id] = h.output_of({ h.program("relay"), "token", "new", id,
      "--tokens", file }):match("%S+")
  end
  return file, tokens
end

-- A relay with a certificate, and its authority.
function certs.start_relay(options, own)
  local authority = certs.authority()
  own = own or authority:sign("relay", certs.NAMES)
  local relay = h.start_relay({ "--tls-cert", own.cert, "--tls-key", own.key,
    table.unpack(options or {}) })
  return relay, authority, own
end

-- An agent that gets in: options.token, options.host (that it dials).
function certs.enter(relay, options, ...)
  return h.start_echoserver(relay, { env = { RELAY_TOKEN = options.token },
    relay_host = options.host, ... })
end

-- One that is not let in: its last words.
function certs.refused(relay, options, ...)
  local agent = h.start_echoserver(relay, { wait = false, expect = 1,
    env = { RELAY_TOKEN = options.token }, relay_host = options.host, ... })
  lu.assertEquals({ agent:wait() }, { "exit", 1 })
  lu.assertEquals(agent:text(), "")
  return agent:log():match("([^\n]*)\n$")
end

return certs
