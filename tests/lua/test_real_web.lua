-- SPDX-License-Identifier: MIT
--
-- A web server behind `expose`: nginx under the load of wrk and with curl,
-- neither of which knows of a relay, and with a PROXY header, by which nginx
-- sees who its visitors really are.

local lu = require("luaunit")
local h = require("harness")
local real = require("real")

local T = { limit = 120 }

local WANTED = 4000 -- requests of a load, at least

-- ---- load ------------------------------------------------------------------

-- Runs wrk for a second at a time until it has made enough requests; how many.
local function load(port, ...)
  local total = 0
  for _ = 1, 30 do
    local text = h.output_of({ "wrk", "-t", "2", "-d", "1", "--timeout",
      math.floor(h.seconds(10)), ("http://127.0.0.1:%d/page"):format(port),
      ... })
    lu.assertNotStrContains(text, "Socket errors")
    lu.assertNotStrContains(text, "Non-2xx")
    total = total + tonumber(text:match("(%d+) requests in"))
    if total >= WANTED then
      return total
    end
  end
  error(("only %d requests in 30 s"):format(total))
end

-- Each request in nginx's log came from a visitor that the relay's log names,
-- by address and port; and not a request is missing.
local function assert_real_visitors(nginx, relay, count)
  local seen = nginx.seen()
  lu.assertTrue(#seen >= count, #seen .. " lines, " .. count .. " requests")
  for _, entry in ipairs(seen) do
    lu.assertEquals(entry.address, "127.0.0.1")
    lu.assertEquals(entry.status, "200")
  end
  h.wait_until("the relay knows every visitor that nginx saw", function()
    local known = {}
    for port in relay:log():gmatch("visitor closed [^\n]*127%.0%.0%.1:(%d+)") do
      known[port] = true
    end
    for _, entry in ipairs(seen) do
      if not known[entry.port] then
        return false
      end
    end
    return true
  end)
end

local function load_test(version)
  return function()
    h.need("wrk")
    local nginx = real.start_nginx(version ~= nil)
    real.make_file(nginx.www .. "/page", 10000, 1)
    local relay = h.start_relay()
    local expose = h.start_expose(relay, nginx.port,
      version and { "--proxy-protocol", version })
    local count = load(expose.port, "-c", "50")
    -- And with a connection for each request, so that visitors come and go.
    count = count + load(expose.port, "-c", "20", "-H", "Connection: close")
    if version then
      assert_real_visitors(nginx, relay, count)
    end
  end
end

h.each_mode(T, "test_wrk", load_test())
h.each_mode(T, "test_wrk_with_proxy_header_v1", load_test(1))
h.each_mode(T, "test_wrk_with_proxy_header_v2", load_test(2))

-- ---- curl ------------------------------------------------------------------

local function curl(...)
  return h.output_of({ "curl", "-sS", "--fail", "--noproxy", "*", "--max-time",
    math.floor(h.seconds(30)), ... })
end

-- Fetches a page as a visitor from `from`; asserts that nginx saw just it.
local function assert_seen(nginx, port, from, to)
  local local_port = curl("--interface", from, "-o", "/dev/null", "-w",
    "%{local_port}", ("http://%s:%d/page"):format(to, port))
  local entry = h.wait_until("nginx logs the request", function()
    local seen = nginx.seen()
    return seen[#seen] and seen[#seen].port == local_port and seen[#seen]
  end)
  lu.assertEquals(entry.address, from)
  lu.assertEquals(entry.status, "200")
  return entry
end

local function targets_of(nginx)
  return { tostring(nginx.port), "localhost:" .. nginx.port,
    "[::1]:" .. nginx.port, "unix:" .. nginx.path }
end

local function visitors_test(version)
  return function()
    h.need("curl")
    local nginx = real.start_nginx(true)
    real.make_file(nginx.www .. "/page", 10000, 1)
    local relay = h.start_relay()
    for _, target in ipairs(targets_of(nginx)) do
      local expose = h.start_expose(relay, target,
        { "--proxy-protocol", version })
      assert_seen(nginx, expose.port, "127.0.0.1", "127.0.0.1")
      local entry = assert_seen(nginx, expose.port, "127.0.0.9", "127.0.0.1")
      -- What nginx would think without the header.
      lu.assertEquals(entry.remote, target:find("unix") and "unix:"
        or target:find("::1", 1, true) and "::1" or "127.0.0.1")
      assert_seen(nginx, expose.port, "::1", "[::1]")
      expose:stop()
    end
  end
end

T.test_nginx_sees_visitors_by_proxy_header_v1 = visitors_test(1)
T.test_nginx_sees_visitors_by_proxy_header_v2 = visitors_test(2)

-- Files both ways, over each kind of target.
h.each_mode(T, "test_curl_up_and_down", function()
  h.need("curl")
  local nginx = real.start_nginx(false)
  local relay = h.start_relay()
  local file = real.make_file(h.tmpdir() .. "/file", 20 << 20, 7)
  local digest = real.digest(file)
  for i, target in ipairs(targets_of(nginx)) do
    local expose = h.start_expose(relay, target)
    local url = ("http://127.0.0.1:%d/upload/%d"):format(expose.port, i)
    curl("-T", file, url)
    lu.assertEquals(real.digest(nginx.www .. "/upload/" .. i), digest)
    curl("-o", file .. ".back", url)
    lu.assertEquals(real.digest(file .. ".back"), digest)
    expose:stop()
  end
end)

-- Many files at once from one curl.
function T.test_curl_in_parallel()
  h.need("curl")
  local nginx = real.start_nginx(false)
  local relay = h.start_relay()
  local expose = h.start_expose(relay, nginx.port)
  local dir = h.tmpdir()
  for i = 1, 40 do
    real.make_file(("%s/%d"):format(nginx.www, i), 300000 + i, i)
  end
  curl("--parallel", "--parallel-max", "40", "-o", dir .. "/#1",
    ("http://127.0.0.1:%d/[1-40]"):format(expose.port))
  for i = 1, 40 do
    lu.assertEquals(h.read_file(("%s/%d"):format(dir, i)),
      h.read_file(("%s/%d"):format(nginx.www, i)))
  end
end

return T
