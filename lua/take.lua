-- take: rooms grow by what applications took, and groups move to what their process has received.
--
-- An entry whose number was above a registration's room when it was sent was denied to it, and
-- stays so. The caller names the room that it knows: where Redis has another, this call was done
-- before, and the room that is answered tells the same as the first answer did:
-- room - taken is the number of the last entry that was denied, if it is above the room known.
--
-- KEYS     meta      hash
--          leases    zset
--          streams   hash
--          stream*   stream  an audience
--          room*     zset    its room
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          field*    the audience in streams
--          group*    consumer group of the registration
--          room*     the room that the caller knows
--          taken*    how many the application took since
--          received* id of the last entry that the process holds or has delivered
-- RETURNS  OK, then for each the registration's room, or -1 where it has none | EPOCH epoch | LAPSED
-- ATOMIC   Between the last number and the new room no send may be judged by the old one.

-- @include shared/guard
-- @include shared/append

local meta, leases, streams = unpack(KEYS, 1, 3)
local run, epoch, session = unpack(ARGV, 1, 3)

local refusal, _, _, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('HLEN', streams)
for i = 0, (#KEYS - 3) / 2 - 1 do
  redis.call('XLEN', KEYS[4 + 2 * i])
  redis.call('ZCARD', KEYS[5 + 2 * i])
end
redis.call('ZREM', leases, '') -- takes no memory: a full Redis must not refuse what makes room
local answer = { 'OK' }
for i = 0, (#KEYS - 3) / 2 - 1 do
  local stream, room = KEYS[4 + 2 * i], KEYS[5 + 2 * i]
  local field, group, known, taken, received = unpack(ARGV, 4 + 5 * i, 8 + 5 * i)
  local now = redis.call('ZSCORE', room, group)
  if now then
    if tonumber(now) == tonumber(known) and tonumber(taken) > 0 then
      now = math.max(now, last_number(stream, streams, field, floor)) + taken
      redis.call('ZADD', room, 'XX', now, group)
    end
    -- Made anew where its process stands: so a group that somebody destroyed comes back, and its stream.
    if redis.call('EXISTS', stream) == 1 then redis.call('XGROUP', 'DESTROY', stream, group) end
    redis.call('XGROUP', 'CREATE', stream, group, received, 'MKSTREAM')
  end
  answer[#answer + 1] = tostring(now or -1)
end
return answer
