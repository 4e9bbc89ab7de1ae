-- delete_pool: a pool ends, by hand or with the right that it stood on. What it collected is dropped.
--
-- Dialogs that a replica carries go on (R34); those that wait for a replica are ended before.
--
-- KEYS     meta      hash
--          leases    zset
--          counts    hash    printer|type -> registrations
--          pools     hash    pool's registration -> its record (JSON)
--          streams   hash
--          waiting   set     its dialogs that wait for a replica
--          idle      zset    inbox of a replica that waits for work -> what it has in hand
--          stream*   stream  its own, or a board
--          room*     zset    its room
--          returned* zset    entry that was handed back -> when it is due, ms
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the pool's registration
--          group     name of the consumer group
--          count     printer|type
--          field*    the stream in streams
-- RETURNS  OK | GONE | HOLDS how many | EPOCH epoch | LAPSED
-- ATOMIC   The next send's count must not include a pool that collects no more.

-- @include shared/guard
-- @include shared/append
-- @include shared/pool

local meta, leases, counts, pools, streams, waiting, idle = unpack(KEYS, 1, 7)
local run, epoch, session, id, group, count = unpack(ARGV, 1, 6)

local refusal, _, bell, floor, listed = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
if redis.call('HEXISTS', pools, id) == 0 then return { 'GONE' } end
local holds = redis.call('SCARD', waiting)
if holds > 0 then return { 'HOLDS', holds } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('HLEN', counts)
redis.call('HLEN', streams)
redis.call('ZCARD', idle)
for i = 0, (#KEYS - 7) / 3 - 1 do
  redis.call('XLEN', KEYS[8 + 3 * i])
  redis.call('ZCARD', KEYS[9 + 3 * i])
  redis.call('ZCARD', KEYS[10 + 3 * i])
end
local many = redis.call('HLEN', pools)
local pooled = redis.call('HGET', meta, 'pooled') or many
redis.call('HDEL', pools, id)
redis.call('HSET', meta, 'pools', next_list(listed, epoch), 'pooled', pooled - 1)
if redis.call('HINCRBY', counts, count, -1) <= 0 then redis.call('HDEL', counts, count) end
for i = 0, (#KEYS - 7) / 3 - 1 do
  local stream, room, returned, field = KEYS[8 + 3 * i], KEYS[9 + 3 * i], KEYS[10 + 3 * i], ARGV[7 + i]
  local board = redis.call('ZSCORE', room, group) == 'inf'
  redis.call('ZREM', room, group)
  if redis.call('EXISTS', stream) == 1 then redis.call('XGROUP', 'DESTROY', stream, group) end
  redis.call('DEL', returned)
  redis.call('HDEL', streams, field .. ' denied', field .. ' again ' .. id)
  if not board or redis.call('XLEN', stream) == 0 then
    floor = retire(meta, stream, room, streams, field, floor)
  end
end
wake(bell, idle, redis.call('ZCARD', idle), id)
return { 'OK' }
