-- SPDX-License-Identifier: MIT
std = "lua54"
max_line_length = 80
exclude_files = { "build", "build/**", "tests/lua/bad/**" }
