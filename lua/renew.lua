-- renew: a living process keeps its lease, and says what it has read of its inbox.
--
-- KEYS     meta      hash
--          leases    zset
--          inbox     stream  what concerns the caller's session
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          lease     ms that this renewal is good for
--          unread    id of the first inbox entry that the caller may still need
-- RETURNS  OK ms of Redis time | EPOCH epoch | LAPSED
-- ATOMIC   A session that may be swept must not come back: the dead are refused in the same step.

-- @include shared/guard

local meta, leases, inbox = unpack(KEYS, 1, 3)
local run, epoch, session, lease, unread = unpack(ARGV, 1, 5)

local refusal, now = guard(meta, leases, run, epoch, session)
if refusal then return refusal end

-- The trim comes first: a full Redis refuses a script whose first write takes memory, and must not
-- let the living die.
redis.call('XTRIM', inbox, 'MINID', unread)
redis.call('ZADD', leases, string.format('%.0f', now + lease), session)
return { 'OK', string.format('%.0f', now) }
