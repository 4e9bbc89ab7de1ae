-- replay: a dead letter goes back to the pool that put it aside.
--
-- A notification is added to the pool's stream as a new entry; a question that is still open is
-- handed out from its board again, to that pool alone. Neither need be there any more when a call
-- is repeated, so the letter leaves a receipt: whose call it was.
--
-- KEYS     meta      hash
--          leases    zset
--          pools     hash    pool's registration -> its record (JSON)
--          streams   hash
--          dead      stream  the server's dead letters
--          receipt   string  id of the call by which this letter went
--          stream    stream  the pool's own, or the board
--          room      zset    its room
--          returned  zset    entry that was handed back -> when it is due, ms
--          idle      zset    inbox of a replica that waits for work -> what it has in hand
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          letter    the letter's id
--          call      id of this call, minted by the caller
--          keep      ms that the receipt stays
--          pool      the pool's registration
--          group     name of the consumer group
--          field     the stream in streams
--          entry     the entry that was put aside
--          name*     a field of the notification
--          value*    its value
-- RETURNS  OK | GONE | NO_POOL | FULL | OVER | EPOCH epoch | LAPSED
-- ATOMIC   Two who replay one letter must not make two notifications of it.

-- @include shared/guard
-- @include shared/append
-- @include shared/pool

local meta, leases, pools, streams, dead, receipt, stream, room, returned, idle = unpack(KEYS, 1, 10)
local run, epoch, session, letter, call, keep, pool, group, field, entry = unpack(ARGV, 1, 10)

local refusal, now, bell, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local by = redis.call('GET', receipt)
if not is_there(dead, letter) then
  if by == call then return { 'OK' } end
  return { 'GONE' }
end
if redis.call('HEXISTS', pools, pool) == 0 then return { 'NO_POOL' } end
local space, number = redis.call('ZSCORE', room, group), last_number(stream, streams, field, floor)
if not space then return { 'NO_POOL' } end
local is_board = space == 'inf'
if is_board and not is_there(stream, entry) then return { 'OVER' } end
if not is_board and tonumber(space) <= number then return { 'FULL' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('XLEN', stream)
redis.call('ZCARD', returned)
redis.call('ZCARD', idle)
if is_board then
  redis.call('ZADD', returned, string.format('%.0f', now), entry)
  if has_group(stream, group) then redis.call('XCLAIM', stream, group, NOBODY, 0, entry, 'FORCE', 'JUSTID') end
else
  redis.call('HSET', streams, field, number + 1)
  redis.call('XADD', stream, entry_id(epoch, number + 1), unpack(ARGV, 11))
end
redis.call('XDEL', dead, letter)
redis.call('SET', receipt, call, 'PX', keep)
wake(bell, idle, 1, pool)
return { 'OK' }
