-- SPDX-License-Identifier: MIT
std = "lua54"
max_line_length = 80
exclude_files = { "build", "build/**", "lua/relay.d.lua",
  "tests/lua/bad/**" }

-- Policies see fewer globals.
stds.policy = dofile("lua/relay/luacheck.lua")
files["scripts/"] = { std = "policy" }
