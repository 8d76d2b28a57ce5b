# SPDX-License-Identifier: MIT
if(RELAY_WITH_LUA)
  target_compile_definitions(test_lua_embed PRIVATE RELAY_WITH_LUA)
  target_link_libraries(test_lua_embed PRIVATE relay_lua)
endif()
