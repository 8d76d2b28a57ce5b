-- SPDX-License-Identifier: MIT
--
-- An endless loop before there is a policy.
-- end: refused
-- says: of CPU time

while true do end
