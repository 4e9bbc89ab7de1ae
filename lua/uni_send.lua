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
--          stream*   stream  an audience of this channel, or a pool that it concerns
--          room*     zset    its room
--          idle*     zset    the pool's replicas that wait for work; for an audience its room again
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
--          trace     the sender's trace context, or empty
--          pools     which list of pools the streams were chosen by
--          keep      ms that a body which is kept by reference waits for a pool
--          field*    the stream in streams
--          pool*     the pool's registration; for an audience empty
-- RETURNS  OK | LOST | FAILURE | NO_LISTENERS | FULL | CLOSED closer | GONE | NOT_YOURS | GAP | NO_BODY
--          | POOLS which list is the present one | EPOCH epoch | LAPSED
-- ATOMIC   A listener that comes or goes between the count and the entry would make the answer a lie.

-- @include shared/guard
-- @include shared/append
-- @include shared/pool

local meta, leases, channel, streams, body = unpack(KEYS, 1, 5)
local run, epoch, session, op, id, printer, user, data, kept, lossless, trace, pools, keep = unpack(ARGV, 1, 13)

local refusal, now, bell, floor, present = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, holder, last, answer, closer =
  unpack(redis.call('HMGET', channel, 'state', 'session', 'op', 'word', 'closer'))
if not state then return { 'GONE' } end
if holder ~= session then return { 'NOT_YOURS' } end
if last == op then return { answer } end
if tonumber(last) + 1 ~= tonumber(op) then return { 'GAP' } end
if state == 'closed' then return { 'CLOSED', closer } end
if present ~= pools then return { 'POOLS', present } end
if redis.call('EXISTS', body) == 0 then return { 'NO_BODY' } end

local listeners, missed, reached, denied, pooled = 0, 0, {}, {}, false
for i = 0, (#KEYS - 5) / 3 - 1 do
  local stream, room, idle = unpack(KEYS, 6 + 3 * i, 8 + 3 * i)
  local field, pool = ARGV[14 + 2 * i], ARGV[15 + 2 * i]
  redis.call('XLEN', stream) -- raises WRONGTYPE for somebody else's key before anything is written
  redis.call('ZCARD', idle)
  local here = redis.call('ZCARD', room)
  local full = redis.call('ZCOUNT', room, '-inf', last_number(streams, field, floor))
  listeners, missed = listeners + here, missed + full
  if here > full then
    reached[#reached + 1] = { stream, field, pool, idle }
    pooled = pooled or pool ~= ''
  end
  if full > 0 and pool ~= '' then denied[#denied + 1] = field .. ' denied' end
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
for _, count in ipairs(denied) do redis.call('HINCRBY', streams, count, 1) end
local at = string.format('%.0f', now)
local fields = traced({ 'channel', id, 'op', op, 'printer', printer, 'user', user, 'at', at, kept, data }, trace)
if kept == 'ref' and pooled then -- the body is not a listener's to end; a pool's where it alone heard it
  redis.call('PEXPIRE', body, keep)
  fields[#fields + 1] = 'keep'
  fields[#fields + 1] = #reached > 1 and 'shared' or 'sole'
end
for _, one in ipairs(reached) do
  local field, pool = one[2], one[3]
  if pool == '' then
    append(bell, one[1], streams, field, epoch, floor, fields)
  else
    add(one[1], streams, field, epoch, floor, fields)
    wake(bell, one[4], 1, pool)
  end
end
return { word }
