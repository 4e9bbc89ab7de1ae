-- bury: forgets a session that holds nothing any more, one's own or a dead one.
--
-- KEYS     meta      hash
--          leases    zset
--          streams   hash
--          held      set     what the session holds
--          inbox     stream  the session's inbox
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          whose     the session to forget
--          field     that session's inbox in streams
-- RETURNS  OK | HOLDS how many | NOT_DEAD | EPOCH epoch | LAPSED
-- ATOMIC   A session that takes hold of something between the look and the end would leave it without an owner.

-- @include shared/guard

local meta, leases, streams, held, inbox = unpack(KEYS, 1, 5)
local run, epoch, session, whose, field = unpack(ARGV, 1, 5)

local refusal = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
if whose ~= session and not is_dead(leases, whose) then return { 'NOT_DEAD' } end
local holds = redis.call('SCARD', held)
if holds > 0 then return { 'HOLDS', holds } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('HLEN', streams)
redis.call('DEL', inbox)
redis.call('HDEL', streams, field)
redis.call('ZREM', leases, whose)
return { 'OK' }
