-- dead_letter: what a pool cannot handle is put aside, with what went wrong; its neighbours go on.
--
-- KEYS     meta      hash
--          leases    zset
--          dead      stream  the server's dead letters
--          stream    stream  the pool's own, or a board; where there is no entry, dead again
--          room      zset    its room; likewise
--          body      string  the body, where it is kept by reference; otherwise dead again
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          group     name of the consumer group
--          id        the entry; empty where a dialog is put aside
--          most      how many letters the server keeps
--          keep      ms that a letter's body stays, where it is kept by reference
--          times     how often the entry was delivered when the caller was given it, or 0 where that is all the same
--          after     (id of the last letter that the caller saw before it asked, - where there was none
--          name*     a field of the letter
--          value*    its value
-- RETURNS  OK the letter's id | GONE | NOT_YOURS | EPOCH epoch | LAPSED
-- ATOMIC   Between letter and end another replica would be given what is put aside.

-- @include shared/guard
-- @include shared/pool

local meta, leases, dead, stream, room, body = unpack(KEYS, 1, 6)
local run, epoch, session, group, id, most, keep, times, after = unpack(ARGV, 1, 9)

local refusal = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
redis.call('XLEN', stream) -- raises WRONGTYPE for somebody else's key before anything is written
local holder, delivered = in_hand(stream, group, id)
if holder ~= session or not is_that(times, delivered) then -- perhaps it was done before
  local asked = table.concat({ unpack(ARGV, 10) }, '\n')
  for _, letter in ipairs(redis.call('XRANGE', dead, after, '+', 'COUNT', 1000)) do
    if table.concat(letter[2], '\n') == asked then return { 'OK', letter[1] } end
  end
  if id ~= '' and not holder then return { 'GONE' } end
  if id ~= '' then return { 'NOT_YOURS' } end
end
if id ~= '' and not redis.call('ZSCORE', room, group) then return { 'GONE' } end

local letter = redis.call('XADD', dead, 'MAXLEN', '=', most, '*', unpack(ARGV, 10))
if id ~= '' then
  redis.call('XACK', stream, group, id)
  if redis.call('ZSCORE', room, group) ~= 'inf' then -- a question's body is its channel's
    if body ~= dead then redis.call('PEXPIRE', body, keep) end
    redis.call('XDEL', stream, id)
    redis.call('ZINCRBY', room, 1, group)
  end
end
return { 'OK', letter }
