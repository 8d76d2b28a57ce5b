-- SPDX-License-Identifier: MIT
--
-- Yields before there is a policy.
-- end: refused
-- says: attempt to yield from outside a coroutine

coroutine.yield({})
