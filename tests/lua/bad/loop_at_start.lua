-- SPDX-License-Identifier: MIT
--
-- An endless loop in start.
-- end: refused
-- says: of CPU time

return { start = function() while true do end end }
