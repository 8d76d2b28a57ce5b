-- SPDX-License-Identifier: MIT
--
-- Where one system stands while it is measured: what it was started from, word
-- for word, so that the page can show it; its processes, and what they use of
-- the machine; and how far its agent is from its relay.

local h = require("harness")
local machine = require("machine")
local real = require("real")

local scaffold = {}

local Scaffold = {}
Scaffold.__index = Scaffold

-- new{backend=PORT, delay=MS, material=DIR}: for a system that leads to
-- `backend`, its hops a round trip of `delay` apart. `material` has what all of
-- them share: certificates, tokens.
function scaffold.new(options)
  return setmetatable({
    backend = options.backend,
    delay = options.delay or 0,
    material = options.material,
    directory = h.tmpdir(),
    names = { [tostring(options.backend)] = "BACKEND" }, -- of ports
    hops = {},     -- processes: of the relay first, then of the agent
    others = {},   -- what it needs and nobody measures
    recipe = {},   -- commands and files
  }, Scaffold)
end

-- A free port, which is called so where it is shown.
function Scaffold:port(name)
  local port = real.free_port()
  self.names[tostring(port)] = name
  return port
end

-- ---- what it is made of -----------------------------------------------------

-- Names that do not change from run to run.
function Scaffold:plain(text)
  text = text:gsub(self.directory:gsub("%p", "%%%0"), "DIR")
  text = text:gsub(self.material:gsub("%p", "%%%0"), "DIR")
  return (text:gsub("%f[%d]%d+", self.names))
end

-- A file of its configuration; its path.
function Scaffold:file(name, text)
  table.insert(self.recipe, { name = name, text = self:plain(text) })
  return h.write_file(self.directory .. "/" .. name, text)
end

local function command_line(command)
  local words = {}
  for i, word in ipairs(command) do
    word = tostring(word)
    word = i == 1 and word:match("[^/]+$") or word
    table.insert(words, word)
  end
  return table.concat(words, " ")
end

function Scaffold:note(command)
  table.insert(self.recipe, { text = self:plain(command_line(command)) })
end

-- Starts one of its hops.
function Scaffold:hop(command)
  self:note(command)
  return self:add(h.start(command))
end

function Scaffold:add(process)
  table.insert(self.hops, process)
  return process
end

-- Waits until a hop accepts connections.
function Scaffold.await(_, process, port)
  real.await_port(process, port)
end

-- Where the agent finds the relay's `port`: there, or behind the way to it.
-- `host` is for agents that cannot be told a port.
function Scaffold:far(port, host)
  if self.delay == 0 then
    return "127.0.0.1", port
  end
  local way = h.start({ h.build .. "/tests/load", "delay", host or "127.0.0.1",
    tostring(host and port or 0), tostring(port), tostring(self.delay) })
  table.insert(self.others, way)
  local near = way:wait_line("^(%d+)$")
  self.names[near] = self.names[tostring(port)]
  return host or "127.0.0.1", math.tointeger(near)
end

-- ---- what it uses -----------------------------------------------------------

local function add_tree(pid, list)
  local path = ("/proc/%d/task/%d/children"):format(pid, pid)
  table.insert(list, pid)
  for child in (machine.read(path) or ""):gmatch("%d+") do
    add_tree(math.tointeger(child), list)
  end
  return list
end

local function tree(process)
  return add_tree(process:pid(), {})
end

local TICKS <const> = 100 -- a second, in /proc; the same on every Linux

-- Seconds that a process has run, and children of it that have ended.
local function cpu_of(pid)
  local text = machine.read(("/proc/%d/stat"):format(pid))
  local user, kernel, users, kernels = (text or ""):match(
    "%) %S" .. (" %S+"):rep(10) .. " (%d+) (%d+) (%d+) (%d+)")
  return user and (user + kernel + users + kernels) / TICKS or 0
end

-- Seconds of CPU of all hops.
function Scaffold:cpu()
  local seconds = 0
  for _, hop in ipairs(self.hops) do
    for _, pid in ipairs(tree(hop)) do
      seconds = seconds + cpu_of(pid)
    end
  end
  return seconds
end

-- Seconds of CPU of everything that runs, and of the kernel by itself.
function scaffold.machine_cpu()
  local user, nice, kernel, irq, softirq = machine.read("/proc/stat"):match(
    "^cpu +(%d+) (%d+) (%d+) %d+ %d+ (%d+) (%d+)")
  return (user + nice + kernel + irq + softirq) / TICKS
end

-- Bytes of memory of a hop: its own, and its part of what is shared.
local function memory_of(hop)
  local bytes = 0
  for _, pid in ipairs(tree(hop)) do
    local text = machine.read(("/proc/%d/smaps_rollup"):format(pid)) or ""
    bytes = bytes + (tonumber(text:match("\nPss:%s+(%d+)")) or 0) * 1024
  end
  return bytes
end

-- Bytes of the relay's side, and of all hops.
function Scaffold:memory()
  local first, all = 0, 0
  for i, hop in ipairs(self.hops) do
    local bytes = memory_of(hop)
    first = i == 1 and bytes or first
    all = all + bytes
  end
  return first, all
end

-- ---- its end ----------------------------------------------------------------

function Scaffold:close()
  for _, list in ipairs({ self.hops, self.others }) do
    for _, process in ipairs(list) do
      process:kill("TERM")
    end
  end
  for _, list in ipairs({ self.hops, self.others }) do
    for _, process in ipairs(list) do
      if not process.handle:wait(0.5) then
        h.sys.kill(-process:pid(), "KILL")
        process.handle:wait(5)
      end
      h.sys.kill(-process:pid(), "KILL")
    end
  end
end

return scaffold
