# SPDX-License-Identifier: MIT
target_compile_definitions(test_binding PRIVATE
  PROTOCOL_PATH="${PROJECT_SOURCE_DIR}/docs/protocol.md")
