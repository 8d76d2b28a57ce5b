# SPDX-License-Identifier: MIT
if(RELAY_WITH_LUA)
  target_compile_definitions(test_lua_memory PRIVATE RELAY_WITH_LUA)
  target_link_libraries(test_lua_memory PRIVATE relay_lua)
endif()
