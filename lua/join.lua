-- join: a session becomes a replica of a pool. Its share is run down with the session.
--
-- KEYS     meta      hash
--          leases    zset
--          pools     hash    pool's registration -> its record (JSON)
--          held      set     what the caller's session holds
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the pool's registration
-- RETURNS  OK which list of pools is the present one | GONE the same | EPOCH epoch | LAPSED
-- ATOMIC   A session that is being buried must not come to hold a share.

-- @include shared/guard

local meta, leases, pools, held = unpack(KEYS, 1, 4)
local run, epoch, session, id = unpack(ARGV, 1, 4)

local refusal, _, _, _, listed = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
if redis.call('HEXISTS', pools, id) == 0 then return { 'GONE', listed } end
redis.call('SADD', held, 'replica:' .. id)
return { 'OK', listed }
