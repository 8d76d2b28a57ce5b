-- SPDX-License-Identifier: MIT
--
-- Cases (see policy_cases.lua) of the store, sets of addresses and first bytes.

local lu = require("luaunit")
local bodies = require("policy_bodies")

local run, holds, raises = bodies.run, bodies.holds, bodies.raises

local cases = {}

-- ---- the store --------------------------------------------------------------

cases["kv"] = holds([[local kv = relay.kv
  assert(kv.get("a") == nil and kv.delete("a") == false)
  assert(kv.set("a", "x\0y") == true and kv.get("a") == "x\0y")
  assert(kv.set("a", 5) and math.type(kv.get("a")) == "integer")
  assert(kv.set("a", 0.5) and kv.get("a") == 0.5)
  assert(kv.set("a", nil) == true and kv.get("a") == nil)
  assert(kv.set("a", nil) == false)
  assert(kv.incr("n") == 1 and kv.incr("n", 5) == 6)
  assert(kv.incr("n", -10) == -4 and kv.incr("n", 0.5) == -3.5)
  assert(kv.incr("n", "2") == -1.5)
  assert(math.type(kv.incr("m", 2.0)) == "float")
  assert(kv.delete("n") == true and kv.get("n") == nil)
  kv.set(5, "five") assert(kv.get("5") == "five")]])

cases["kv expires"] = function(scene)
  local w = run(scene, [[local kv = relay.kv
    kv.set("a", 1, 0.5) kv.set("b", 1, 1) kv.set("c", 1)
    kv.incr("d", 1, 0.5) kv.incr("d", 1, 60)
    kv.set("e", 1, 0.5) kv.set("e", 2)
    local function show()
      print(kv.get("a"), kv.get("b"), kv.get("c"), kv.get("d"), kv.get("e"))
    end
    show() relay.sleep(0.499) show() relay.sleep(0.001) show()
    relay.sleep(0.499) show() relay.sleep(0.0005) show()]])
  w.advance(3)
  lu.assertEquals(scene.told(w), { "info 1 1 1 2 2", "info 1 1 1 2 2",
    "info nil 1 1 nil 2", "info nil 1 1 nil 2", "info nil nil 1 nil 2" })
end

cases["kv of a wrong type"] = raises("relay.kv.set('k', {})",
  "bad argument #2 to 'set' (string or number expected, got table)")
cases["kv without a value"] = raises("relay.kv.set('k')",
  "bad argument #2 to 'set' (string or number expected, got no value)")
cases["kv without a key"] = raises("relay.kv.get()",
  "bad argument #1 to 'get' (string expected, got no value)")
cases["kv incr of a string"] = raises(
  "relay.kv.set('k', 'v') relay.kv.incr('k')", "relay.kv: 'k' is a string")
cases["kv incr by a word"] = raises("relay.kv.incr('k', 'v')",
  "bad argument #2 to 'incr' (number expected, got string)")
cases["kv for less than no time"] = raises("relay.kv.set('k', 1, -1)",
  "bad argument #3 to 'set' (not a number of seconds)")
cases["kv is full"] = function(scene)
  local w, verdict = run(scene, [[local big = ("x"):rep(1 << 20)
    for i = 1, 70 do relay.kv.set("big" .. i, big) end]])
  lu.assertEquals(verdict.error, "policy.lua:2: relay.kv is full")
  lu.assertEquals(#w.logs, 1)
end

-- ---- addresses --------------------------------------------------------------

cases["cidr"] = holds([[
  local set = relay.cidr { "10.0.0.0/8", "192.168.1.7", "192.168.2.0/23",
    "2001:db8::/32", "::1", "172.16.0.0/12", "10.1.0.0/16",
    "::ffff:9.0.0.0/104", "fe80::1:2.3.4.5", "1:2:3:4:5:6:7::" }
  for _, ip in ipairs { "10.0.0.0", "10.255.255.255", "192.168.1.7",
      "192.168.3.255", "2001:db8::5", "2001:DB8:1::", "::1", "0:0:0:0:0:0:0:1",
      "::ffff:10.1.2.3", "172.31.255.255", "9.1.2.3", "fe80::1:203:405",
      "1:2:3:4:5:6:7:0" } do
    assert(set:has(ip) == true, ip)
  end
  for _, ip in ipairs { "11.0.0.0", "8.255.255.255", "192.168.1.8",
      "192.168.4.0", "2001:db9::", "::2", "172.32.0.0", "::" } do
    assert(set:has(ip) == false, ip)
  end
  assert(relay.cidr { "0.0.0.0/0" }:has("1.2.3.4"))
  assert(not relay.cidr { "0.0.0.0/0" }:has("2001::1"))
  assert(relay.cidr { "::/0" }:has("1.2.3.4"))
  assert(relay.cidr { "1.2.3.4/-0" }:has("9.9.9.9"))
  assert(not relay.cidr {}:has("1.2.3.4"))]])

cases["cidr of what is no list"] = holds([[
  for _, bad in ipairs { { office = "10.0.0.0/8" }, { [2] = "10.0.0.0/8" },
      { "10.0.0.0/8", n = 1 } } do
    local ok, why = pcall(relay.cidr, bad)
    assert(not ok and why:find("its table must be a list", 1, true), why)
  end]])

cases["cidr of what is none"] = holds([[
  for _, bad in ipairs { "", "x", "10.0.0.0/33", "10.0.0.0/", "1.2.3",
      "::/129", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0.0/ 8", "10.0.0.0/+8",
      "01.2.3.4", "256.1.1.1", "1.2.3.4.5", "1.2.3.4.", ".1.2.3.4", ":::",
      "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "g::",
      ":1::", "1::2:", "::1.2.3", "::1.2.3.4:5", "1.2.3.4::",
      "1:2:3:4:5:6:7:8::", "[::1]", "::1%lo", " 1.2.3.4",
      "1:2:3:4:5:6:7:1.2.3.4", "/8", "1.2.3.4/8/8" } do
    local ok, why = pcall(relay.cidr, { bad })
    assert(not ok and why == "relay.cidr: '" .. bad ..
      "' is not an address or network", bad)
  end
  assert(not pcall(relay.cidr, { 5 }))]])

cases["cidr has what is none"] = raises(
  "relay.cidr { '::1' }:has('nowhere')", "'nowhere' is not an address")
cases["cidr without a list"] = raises("relay.cidr('::1')",
  "bad argument #1 to 'cidr' (table expected, got string)")
cases["cidr on something else"] = raises(
  "local s = relay.cidr {} s.has({}, '::1')",
  "bad argument #1 to 'has' (relay.cidr expected, got table)")

-- ---- first bytes ------------------------------------------------------------

-- What a browser would send.
local function hello(name)
  local names = "\0" .. (">s2"):pack(name)
  local extension = (">s2"):pack((">s2"):pack(names))
  local extensions = (">I2s2"):pack(23, "") .. "\0\0" .. extension
  local body = "\3\3" .. ("r"):rep(32) .. (">s1"):pack(("s"):rep(32)) ..
    (">s2"):pack("\x13\x01") .. (">s1"):pack("\0") .. (">s2"):pack(extensions)
  return "\x16\3\1" .. (">s2"):pack("\1" .. (">s3"):pack(body))
end

-- Every answer for each beginning, and with each byte replaced, as one text.
local WALK = [[
  local bytes = %q
  local seen = {}
  local function look(text)
    local name, need = relay.%s(text)
    seen[#seen + 1] = tostring(name) .. tostring(need)
  end
  for i = 0, #bytes do look(bytes:sub(1, i)) end
  for i = 1, #bytes do
    for _, c in ipairs { "\0", "\255", "\n", ":", " ", "A" } do
      look(bytes:sub(1, i - 1) .. c .. bytes:sub(i + 1))
    end
  end
  local text, sum = table.concat(seen, ","), 0
  for i = 1, #text do sum = (sum * 31 + text:byte(i)) %% 1000000007 end
  print(#text, sum, seen[#bytes + 1])]]

-- The numbers are those of the engine.
local function walk(reader, bytes, expect)
  return function(scene)
    local w, verdict = run(scene, WALK:format(bytes, reader))
    lu.assertEquals(verdict, { allow = true })
    lu.assertEquals(scene.told(w), { "info " .. expect })
  end
end

cases["sni"] = walk("sni", hello("WWW.Example.com"),
  "12031 865127698 www.example.comnil")
cases["sni of an empty hello"] = walk("sni", hello(""),
  "4847 600352970 nilnil")
cases["http_host"] = walk("http_host",
  "GET / HTTP/1.1\r\nA: b\r\nhOST: \t Example.com:80 \r\n\r\n",
  "4220 373096207 example.comnil")
cases["http_host, a literal"] = walk("http_host",
  "POST /x HTTP/1.0\nHost: [::1]:8\n", "1786 729377704 [::1]nil")
cases["ssh"] = walk("ssh", "SSH-2.0-OpenSSH_9.2p1 Debian\r\nx",
  "3644 32832615 OpenSSH_9.2p1 Debiannil")

cases["hellos too long to wait for"] = holds([[
  assert(relay.sni("\x16\3\1\xff\xff\1\0\x0f\xf7") == false)
  assert(relay.sni("\x16\3\1\xff\xff\1\0\x0f\xf8") == nil)
  assert(relay.http_host("GET /" .. ("x"):rep(4090)) == false)
  assert(relay.http_host("GET /" .. ("x"):rep(4091)) == nil)
  assert(relay.http_host("NOSPACEWITHINSIX") == nil)
  assert(relay.ssh("SSH-2.0-" .. ("x"):rep(246)) == false)
  assert(relay.ssh("SSH-2.0-" .. ("x"):rep(247)) == nil)
  assert(select("#", relay.sni("x")) == 1)]])
cases["sni of no string"] = raises("relay.sni()",
  "bad argument #1 to 'sni' (string expected, got no value)")

return cases
