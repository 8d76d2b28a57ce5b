-- SPDX-License-Identifier: MIT
--
-- A table that never runs out of keys is not asked for them.
-- end: served

return setmetatable({}, { __pairs = function() while true do end end })
