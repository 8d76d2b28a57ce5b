-- SPDX-License-Identifier: MIT
--
-- A certificate authority for one test, and what it signs.

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

-- With `path`, its own certificate.
function certs.authority()
  h.need("openssl")
  local dir = h.tmpdir()
  local self = setmetatable({ dir = dir, path = dir .. "/ca.pem" }, Authority)
  openssl({ "req", "-x509", "-subj", "/CN=Test authority", "-days", "30",
    "-keyout", dir .. "/ca.key", "-out", self.path }, ec)
  return self
end

-- { cert =, key = }: paths, for these names ("DNS:a,IP:127.0.0.1"), valid for
-- so many days (30; -1: until yesterday).
function Authority:sign(name, names, days)
  local base = ("%s/%s"):format(self.dir, name)
  h.write_file(base .. ".ext", "subjectAltName=" .. names .. "\n")
  openssl({ "req", "-subj", "/CN=" .. name, "-keyout", base .. ".key", "-out",
    base .. ".csr" }, ec)
  openssl({ "x509", "-req", "-in", base .. ".csr", "-CA", self.path, "-CAkey",
    self.dir .. "/ca.key", "-CAcreateserial", "-extfile", base .. ".ext",
    "-days", tostring(days or 30), "-out", base .. ".pem" })
  return { cert = base .. ".pem", key = base .. ".key" }
end

return certs
