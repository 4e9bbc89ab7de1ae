-- orphan: a pool's dialog waits for another replica, because the one that carried it leaves or died.
--
-- The pool stays the owner: nobody else can answer, and the source is not told.
--
-- KEYS     meta      hash
--          leases    zset
--          pools     hash    pool's registration -> its record (JSON)
--          channel   hash
--          held      set     what the holder's session holds
--          waiting   set     the pool's dialogs that wait for a replica
--          idle      zset    inbox of a replica that waits for work -> what it has in hand
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the channel's id
--          pool      the pool's registration
--          holder    the session that carried the dialog
-- RETURNS  OK | GONE | NO_POOL | NOT_YOURS | EPOCH epoch | LAPSED
-- ATOMIC   A dialog is held by one session or waits, at every instant; a living one keeps it.

-- @include shared/guard
-- @include shared/pool

local meta, leases, pools, channel, held, waiting, idle = unpack(KEYS, 1, 7)
local run, epoch, session, id, pool, holder = unpack(ARGV, 1, 6)

local refusal, _, bell = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
if holder ~= session and not is_dead(leases, holder) then return { 'NOT_YOURS' } end
local state, owner, owner_session = unpack(redis.call('HMGET', channel, 'state', 'owner', 'owner_session'))
local dialog = 'dialog:' .. id .. ':' .. pool
local is_over = not state or state == 'closed' or owner ~= pool or owner_session ~= holder
if not is_over and redis.call('HEXISTS', pools, pool) == 0 then return { 'NO_POOL' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('SCARD', waiting)
redis.call('ZCARD', idle)
redis.call('SREM', held, dialog)
if is_over then return { 'GONE' } end
redis.call('HSET', channel, 'owner_session', pool)
redis.call('SADD', waiting, dialog)
wake(bell, idle, 1, pool)
return { 'OK' }
