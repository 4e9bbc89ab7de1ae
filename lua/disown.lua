-- disown: a session's share in a pool goes back to the pool: when the replica leaves, or after its death.
--
-- What it had in hand is claimed by its name as a consumer, so the cost grows with what the dead
-- one held, not with what the living hold.
--
-- KEYS     meta      hash
--          leases    zset
--          held      set     what the holder's session holds
--          inbox     stream  the holder's inbox
--          idle      zset    inbox of a replica that waits for work -> what it has in hand
--          stream*   stream  the pool's own, or a board
--          returned* zset    entry that was handed back -> when it is due, ms
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the pool's registration
--          group     name of the consumer group
--          holder    the session whose share it is
--          most      how many entries to move at the most
-- RETURNS  OK how many it moved | MORE how many | NOT_YOURS | EPOCH epoch | LAPSED
-- ATOMIC   A replica that is alive must not lose what it has in hand: death and claim are one step.

-- @include shared/guard
-- @include shared/pool

local meta, leases, held, inbox, idle = unpack(KEYS, 1, 5)
local run, epoch, session, id, group, holder, most = unpack(ARGV, 1, 7)

local refusal, now, bell = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
if holder ~= session and not is_dead(leases, holder) then return { 'NOT_YOURS' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('SCARD', held)
for i = 0, (#KEYS - 5) / 2 - 1 do
  redis.call('XLEN', KEYS[6 + 2 * i])
  redis.call('ZCARD', KEYS[7 + 2 * i])
end
redis.call('ZREM', idle, inbox) -- takes no memory: a full Redis must not keep the dead in place
local moved = 0
for i = 0, (#KEYS - 5) / 2 - 1 do
  local stream, returned = KEYS[6 + 2 * i], KEYS[7 + 2 * i]
  if has_group(stream, group) then -- otherwise the pool was deleted, and nobody has anything of it in hand
    for _, one in ipairs(redis.call('XPENDING', stream, group, '-', '+', most - moved, holder)) do
      if is_there(stream, one[1]) then
        -- A little later each: due at once, and in their order.
        redis.call('ZADD', returned, string.format('%.3f', now - 1 + moved / 1000), one[1])
        redis.call('XCLAIM', stream, group, NOBODY, 0, one[1], 'JUSTID')
      else
        redis.call('XACK', stream, group, one[1]) -- a question that is open no more
      end
      moved = moved + 1
    end
    if moved < tonumber(most) then redis.call('XGROUP', 'DELCONSUMER', stream, group, holder) end
  end
end
wake(bell, idle, moved, id)
if moved == tonumber(most) then return { 'MORE', moved } end
redis.call('SREM', held, 'replica:' .. id)
return { 'OK', moved }
