-- SPDX-License-Identifier: MIT
--
-- Where programs are: those that bench/peers builds, and the system's.

local h = require("harness")

local programs = {}

-- As bench/peers has it.
local function peers_directory()
  local cache = os.getenv("XDG_CACHE_HOME") or os.getenv("HOME") .. "/.cache"
  return os.getenv("RELAY_BENCH_PEERS") or cache .. "/relay-bench/bin"
end

local function exists(path)
  local file = io.open(path)
  if file then
    file:close()
  end
  return file ~= nil
end

-- The path of a program, or nil.
function programs.path(name)
  local path = peers_directory() .. "/" .. name
  return exists(path) and path or h.which(name)
end

-- What goes into nginx.conf for `stream`, which Debian has as a module of its
-- own; nil when this nginx has none.
function programs.nginx_stream()
  local path = "/usr/lib/nginx/modules/ngx_stream_module.so"
  if exists(path) then
    return "load_module " .. path .. ";"
  end
  local built = h.run({ programs.path("nginx"), "-V" })
  return built.stderr:find("--with-stream[ \n]") and "" or nil
end

-- What a program says of itself, of which `pattern` takes the version.
function programs.version(path, flag, pattern)
  local out = h.run({ path, flag })
  return (out.stdout .. "\n" .. out.stderr):match(
    pattern or "%d+%.%d+%.%d[%w.+%-]*") or "?"
end

return programs
