-- SPDX-License-Identifier: MIT
--
-- A hook that does not exist.
-- end: refused
-- says: unknown_hook.lua:9: unknown hook 'on_visitor' (did you mean 'visitor'?)

return {
  visitor = function() end,
  on_visitor = function() end,
}
