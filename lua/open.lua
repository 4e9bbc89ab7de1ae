-- open: a source opens a channel, whether or not anyone listens (R3).
--
-- KEYS     meta      hash
--          leases    zset
--          opened    string  channels ever opened; only a source's credential may write it (R1)
--          channels  hash    open channel -> what it is
--          grants    hash    printer|user -> mask of rights; where none is asked for, meta again
--          held      set     what the caller's session holds
--          channel   hash    the channel
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the channel's id, minted by the caller
--          subject   printer|type|style|audience, as in the index
--          style     bi or uni
--          by        the user who opens it
--          right     field in grants that must hold the right, for all users; or empty
--          needed    mask of the right
--          limit     how many channels may be open on this server
-- RETURNS  OK | DENIED | LIMIT | TAKEN | EPOCH epoch | LAPSED
-- ATOMIC   Between the count and the entry no other channel may slip past the limit (R7).

-- @include shared/guard
-- @include shared/rights

local meta, leases, opened, channels, grants, held, channel = unpack(KEYS, 1, 7)
local run, epoch, session, id, subject, style, by, right, needed, limit = unpack(ARGV, 1, 10)

local refusal, now = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local holder = redis.call('HGET', channel, 'session')
if holder == session then return { 'OK' } end
if holder then return { 'TAKEN' } end
if right ~= '' and not has(redis.call('HGET', grants, right), needed) then return { 'DENIED' } end
if redis.call('HLEN', channels) >= tonumber(limit) then return { 'LIMIT' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('SCARD', held)
redis.call('INCR', opened)
redis.call('HSET', channel, 'state', 'open', 'session', session, 'subject', subject, 'style', style,
  'by', by, 'at', string.format('%.0f', now), 'op', 0)
redis.call('HSET', channels, id, subject)
redis.call('SADD', held, 'channel:' .. id)
return { 'OK' }
