-- uni_send: unidirectional notifications of one channel to everybody who has room for them.
--
-- Several that were waiting travel together; each has its own answer, as if it came alone.
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
--          op        number of this operation at the source's end; of several the last one's
--          id        the channel's id
--          printer   the channel's printer, or empty
--          user      the channel's user, or * for all
--          data      the body, the key of the body, or bodies as netstrings
--          kept      body where data is the body, ref where it is a key, bodies where it is several
--          lossless  1 to send nothing when anyone would miss it
--          trace     the sender's trace context, or empty
--          pools     which list of pools the streams were chosen by
--          keep      ms that a body which is kept by reference waits for a pool
--          field*    the stream in streams
--          pool*     the pool's registration; for an audience empty
-- RETURNS  OK | LOST | FAILURE | NO_LISTENERS | FULL | MANY words | CLOSED closer | GONE | NOT_YOURS | GAP
--          | NO_BODY | POOLS which list is the present one | EPOCH epoch | LAPSED
-- ATOMIC   A listener that comes or goes between the count and the entry would make the answer a lie.

-- @include shared/guard
-- @include shared/append
-- @include shared/batch
-- @include shared/pool

local meta, leases, channel, streams, body = unpack(KEYS, 1, 5)
local run, epoch, session, op, id, printer, user, data, kept, lossless, trace, pools, keep = unpack(ARGV, 1, 13)

local refusal, now, bell, floor, present = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, holder, last, answer, closer, answers =
  unpack(redis.call('HMGET', channel, 'state', 'session', 'op', 'word', 'closer', 'words'))
if not state then return { 'GONE' } end
if holder ~= session then return { 'NOT_YOURS' } end
if last == op then return { answer, answer == 'MANY' and answers or nil } end
local bodies = bodies_of(kept, data)
if tonumber(last) + #bodies ~= tonumber(op) then return { 'GAP' } end
if state == 'closed' then return { 'CLOSED', closer } end
if present ~= pools then return { 'POOLS', present } end
if kept == 'ref' and redis.call('EXISTS', body) == 0 then return { 'NO_BODY' } end

-- Who is there, the last number that each stream has, and whether all have room for all.
local routes, most = {}, (#KEYS - 5) / 3 - 1
for i = 0, most do
  local stream, room, idle = unpack(KEYS, 6 + 3 * i, 8 + 3 * i)
  local field, pool = ARGV[14 + 2 * i], ARGV[15 + 2 * i]
  local here, number, tight = redis.call('ZCARD', room), 0, false
  if here > 0 then
    redis.call('XLEN', stream) -- raises WRONGTYPE for somebody else's key before anything is written
    number = last_number(stream, streams, field, floor)
    tight = redis.call('ZCOUNT', room, '-inf', number + #bodies - 1) > 0
  end
  if pool ~= '' then redis.call('ZCARD', idle) end
  routes[i] = { field = field, pool = pool, here = here, number = number, tight = tight, denied = 0, sends = {} }
end

-- What becomes of each, and whom it reaches.
local words = {}
for n = 1, #bodies do
  local listeners, missed, fulls = 0, 0, {}
  for i = 0, most do
    local room, route = KEYS[7 + 3 * i], routes[i]
    fulls[i] = route.tight and redis.call('ZCOUNT', room, '-inf', route.number + #route.sends) or 0
    listeners, missed = listeners + route.here, missed + fulls[i]
  end
  if missed > 0 and lossless == '1' then
    words[n] = 'FULL'
  else
    words[n] = listeners == 0 and 'NO_LISTENERS' or missed == listeners and 'FAILURE' or missed > 0 and 'LOST' or 'OK'
    for i = 0, most do
      local route = routes[i]
      if route.here > fulls[i] then route.sends[#route.sends + 1] = n end
      if fulls[i] > 0 then route.denied = route.denied + 1 end
    end
  end
end
if words[1] == 'FULL' then return { 'FULL' } end -- and so are those after it

answer = #bodies > 1 and { 'MANY', runs_of(words) } or words
redis.call('HSET', channel, 'op', op, 'word', unpack(answer[2] and { 'MANY', 'words', answer[2] } or answer))
local sent, pooled = 0, false
for i = 0, most do
  if #routes[i].sends > 0 then sent, pooled = sent + 1, pooled or routes[i].pool ~= '' end
end
local at, first, entries = string.format('%.0f', now), op - #bodies, {}
for n, one in ipairs(bodies) do
  entries[n] = traced({ 'channel', id, 'op', string.format('%.0f', first + n), 'printer', printer, 'user', user,
    'at', at, kept == 'ref' and kept or 'body', one }, trace)
end
if kept == 'ref' and pooled then -- the body is not a listener's to end; a pool's where it alone heard it
  redis.call('PEXPIRE', body, keep)
  entries[1][#entries[1] + 1] = 'keep'
  entries[1][#entries[1] + 1] = sent > 1 and 'shared' or 'sole'
end
for i = 0, most do
  local stream, idle, route, rung = KEYS[6 + 3 * i], KEYS[8 + 3 * i], routes[i], {}
  for k, n in ipairs(route.sends) do
    rung[k] = { entry_id(epoch, route.number + k), entries[n] }
    redis.call('XADD', stream, rung[k][1], unpack(entries[n]))
  end
  if #rung > 0 then redis.call('HSET', streams, route.field, route.number + #rung) end
  if route.denied > 0 and route.pool ~= '' then
    redis.call('HINCRBY', streams, route.field .. ' denied', route.denied)
  end
  if route.pool ~= '' then wake(bell, idle, #rung, route.pool) elseif #rung > 0 then ring_all(bell, stream, rung) end
end
return answer
