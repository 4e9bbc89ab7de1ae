-- hand_back: a replica gives up what it has in hand; another one, or itself, gets it when it is due.
--
-- How often it was delivered is kept, for it is Redis that counts.
--
-- KEYS     meta      hash
--          leases    zset
--          stream*   stream  the pool's own, or a board
--          returned* zset    entry that was handed back -> when it is due, ms
--          idle*     zset    inbox of a replica that waits for work -> what it has in hand
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          pool*     the pool's registration
--          group*    name of the consumer group
--          id*       the entry
--          times*    how often it was delivered when the caller was given it, or 0 where that is all the same
--          delay*    ms until it is due
-- RETURNS  OK, then for each entry OK | GONE | NOT_YOURS | EPOCH epoch | LAPSED
-- ATOMIC   An entry that is given up has a new holder, or one who may take it, at every instant.

-- @include shared/guard
-- @include shared/pool

local meta, leases = unpack(KEYS, 1, 2)
local run, epoch, session = unpack(ARGV, 1, 3)

local refusal, now, bell = guard(meta, leases, run, epoch, session)
if refusal then return refusal end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
for i = 0, (#KEYS - 2) / 3 - 1 do
  redis.call('XLEN', KEYS[3 + 3 * i])
  redis.call('ZCARD', KEYS[4 + 3 * i])
  redis.call('ZCARD', KEYS[5 + 3 * i])
end
redis.call('ZREM', leases, '') -- takes no memory: a full Redis must not refuse who lets go
local answer = { 'OK' }
for i = 0, (#KEYS - 2) / 3 - 1 do
  local stream, returned, idle = unpack(KEYS, 3 + 3 * i, 5 + 3 * i)
  local pool, group, id, times, delay = unpack(ARGV, 4 + 5 * i, 8 + 5 * i)
  local holder, delivered = in_hand(stream, group, id)
  local word = 'GONE'
  if holder == session and is_that(times, delivered) then
    if is_there(stream, id) then
      redis.call('ZADD', returned, string.format('%.0f', now + delay), id)
      redis.call('XCLAIM', stream, group, NOBODY, 0, id, 'JUSTID')
      wake(bell, idle, 1, pool)
      word = 'OK'
    else
      redis.call('XACK', stream, group, id)
    end
  elseif holder == NOBODY or holder == session then
    word = 'OK' -- done before: of the living nobody else gives up what the caller had
  elseif holder then
    word = 'NOT_YOURS'
  end
  answer[#answer + 1] = word
end
return answer
