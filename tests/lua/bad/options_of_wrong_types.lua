-- SPDX-License-Identifier: MIT
--
-- An option that is no option.
-- end: refused
-- says: option 'max_agents' must be two whole numbers

return { options = { max_agents = {}, ports = "many" } }
