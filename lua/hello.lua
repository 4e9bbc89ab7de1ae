-- hello: a process begins to hold things on this server.
--
-- KEYS     meta      hash    run id, epoch, layout, bell command, grace, floor of numbers, changes of pools
--          leases    zset    session -> deadline in ms of Redis time; 0 once it was swept
--          streams   hash    stream -> number of its last entry
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          session   id of the caller's session
--          lease     ms that a renewal is good for
--          layout    version of the key layout that the caller reads and writes
--          inbox     the field of the caller's inbox in streams
--          bell      PUBLISH or SPUBLISH: how bells ring here, where nobody has said so before
-- RETURNS  OK epoch, bell, which list of pools is the present one | FOREIGN what was found | LAPSED
-- ATOMIC   The layout is compared, and the epoch raised, before anyone can act on either.

-- @include shared/guard

local meta, leases, streams = unpack(KEYS, 1, 3)
local run, session, lease, layout, inbox, bell = unpack(ARGV, 1, 6)

local kind = redis.call('TYPE', meta).ok
if kind ~= 'none' and kind ~= 'hash' then return { 'FOREIGN', 'a ' .. kind } end
local found, known, epoch, grace, listed =
  unpack(redis.call('HMGET', meta, 'layout', 'run', 'epoch', 'grace', 'pools'))
if kind == 'hash' and found ~= layout then return { 'FOREIGN', found and 'layout ' .. found or 'a hash' } end
local deadline = redis.call('ZSCORE', leases, session)
local now = milliseconds()
if deadline and math.max(deadline, (epoch or 0) + (grace or 0)) < now then return { 'LAPSED' } end
if tonumber(deadline) == 0 then return { 'LAPSED' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('HLEN', streams)
redis.call('HSET', meta, 'layout', layout, 'grace', math.max(lease, grace or 0))
redis.call('HSETNX', meta, 'bell', bell)
redis.call('HSETNX', meta, 'floor', 0)
if known ~= run then epoch = raise_epoch(meta, run, epoch, now) end
if kind == 'none' then -- the list may be there, and what somebody knows is the list of another meta
  listed = epoch .. '-0'
  redis.call('HSET', meta, 'pools', listed)
end
redis.call('ZADD', leases, string.format('%.0f', now + lease), session)
redis.call('HSETNX', streams, inbox, 0)
return { 'OK', epoch, redis.call('HGET', meta, 'bell'), listed or '0' }
