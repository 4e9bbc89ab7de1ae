-- uni_send: one unidirectional notification to everybody who has room for it.
--
-- Each audience stream has a room: registration -> number of the last entry it has room for. So
-- who misses this one is known, and answered, in the same step that sends it (R53, R57 to R60).
--
-- KEYS     meta      hash
--          leases    zset
--          channel   hash
--          streams   hash
--          body      string  the body, where it is kept by reference; otherwise the channel again
--          stream*   stream  an audience of this channel
--          room*     zset    its room
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          op        number of this operation at the source's end
--          id        the channel's id
--          printer   the channel's printer, or empty
--          user      the channel's user, or * for all
--          data      the body, or the key of the body
--          kept      body where data is the body, ref where it is a key
--          lossless  1 to send nothing when anyone would miss it
--          field*    the audience in streams
-- RETURNS  OK | LOST | FAILURE | NO_LISTENERS | FULL | CLOSED closer | GONE | NOT_YOURS | GAP | NO_BODY
--          | EPOCH epoch | LAPSED
-- ATOMIC   A listener that comes or goes between the count and the entry would make the answer a lie.

-- @include shared/guard
-- @include shared/append

local meta, leases, channel, streams, body = unpack(KEYS, 1, 5)
local run, epoch, session, op, id, printer, user, data, kept, lossless = unpack(ARGV, 1, 10)

local refusal, now, bell, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, holder, last, answer, closer =
  unpack(redis.call('HMGET', channel, 'state', 'session', 'op', 'word', 'closer'))
if not state then return { 'GONE' } end
if holder ~= session then return { 'NOT_YOURS' } end
if last == op then return { answer } end
if tonumber(last) + 1 ~= tonumber(op) then return { 'GAP' } end
if state == 'closed' then return { 'CLOSED', closer } end
if redis.call('EXISTS', body) == 0 then return { 'NO_BODY' } end

local listeners, missed, reached = 0, 0, {}
for i = 0, (#KEYS - 5) / 2 - 1 do
  local field = ARGV[11 + i]
  redis.call('XLEN', KEYS[6 + 2 * i]) -- raises WRONGTYPE for somebody else's key before anything is written
  local here = redis.call('ZCARD', KEYS[7 + 2 * i])
  local full = redis.call('ZCOUNT', KEYS[7 + 2 * i], '-inf', last_number(streams, field, floor))
  listeners, missed = listeners + here, missed + full
  if here > full then reached[#reached + 1] = { KEYS[6 + 2 * i], field } end
end
if missed > 0 and lossless == '1' then return { 'FULL' } end
local word = 'OK'
if listeners == 0 then
  word = 'NO_LISTENERS'
elseif missed == listeners then
  word = 'FAILURE'
elseif missed > 0 then
  word = 'LOST'
end

redis.call('HSET', channel, 'op', op, 'word', word)
for _, audience in ipairs(reached) do
  append(bell, audience[1], streams, audience[2], epoch, floor,
    { 'channel', id, 'op', op, 'printer', printer, 'user', user, 'at', string.format('%.0f', now), kept, data })
end
return { word }
