-- finish: a replica is done with what it had in hand.
--
-- Only its holder finishes an entry: one whose lease ran out finds it in other hands, or in its own
-- once more. A pool's own entry is dropped, which makes room for one more; a question stays on its
-- board for the others. An entry that nobody holds was finished before, or its group was destroyed
-- meanwhile; then it must not be handed out again.
--
-- What was handed out together is mostly finished together: entries whose numbers follow each other
-- make a row, and what a row costs is paid once.
--
-- KEYS     meta      hash
--          leases    zset
--          stream*   stream  the pool's own, or a board
--          room*     zset    its room
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          group*    name of the consumer group
--          id*       the first entry of the row
--          many*     how many entries it has
--          times*    how often each was delivered when the caller was given it, or 0 where that is all the same
-- RETURNS  OK, then for each entry OK | GONE | NOT_YOURS | EPOCH epoch | LAPSED
-- ATOMIC   Between the look at the holder and the end another replica may be given the entry.

-- @include shared/guard
-- @include shared/pool

local meta, leases = unpack(KEYS, 1, 2)
local run, epoch, session = unpack(ARGV, 1, 3)

local refusal = guard(meta, leases, run, epoch, session)
if refusal then return refusal end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
for i = 0, (#KEYS - 2) / 2 - 1 do
  redis.call('XLEN', KEYS[3 + 2 * i])
  redis.call('ZCARD', KEYS[4 + 2 * i])
end
local answer = { 'OK' }
for i = 0, (#KEYS - 2) / 2 - 1 do
  local stream, room = KEYS[3 + 2 * i], KEYS[4 + 2 * i]
  local group, id, many, times = unpack(ARGV, 4 + 4 * i, 7 + 4 * i)
  local space, over = redis.call('ZSCORE', room, group), {}
  for _, one in ipairs(row_in_hand(stream, group, id, many)) do
    local entry, holder, _, delivered = unpack(one)
    local word = 'GONE'
    if holder and not (holder == session and is_that(times, delivered)) then
      word = 'NOT_YOURS'
    elseif space then
      if holder then word = 'OK' end
      over[#over + 1] = entry
    end
    answer[#answer + 1] = word
  end
  if #over > 0 then
    -- The first write takes no memory: a full Redis must not refuse what makes room.
    redis.call('XACK', stream, group, unpack(over))
    if space ~= 'inf' then
      local dropped = redis.call('XDEL', stream, unpack(over))
      redis.call('ZINCRBY', room, dropped, group)
    end
  end
end
return answer
