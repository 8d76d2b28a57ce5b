# SPDX-License-Identifier: MIT
target_sources(test_lua_peekers PRIVATE ${PROJECT_SOURCE_DIR}/lua/peekers.c)
target_include_directories(test_lua_peekers PRIVATE ${PROJECT_SOURCE_DIR}/lua)
