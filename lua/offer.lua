-- offer: the initial notification of a bidirectional channel, put on the boards of its audience.
--
-- It is held there, with or without listeners, until somebody acquires the channel or the source
-- takes it back (R66 to R70).
--
-- KEYS     meta      hash
--          leases    zset
--          channel   hash
--          log       stream  the conversation
--          streams   hash
--          body      string  the body, where it is kept by reference; otherwise the channel again
--          board*    stream  open questions of an audience of this channel
--          room*     zset    who listens to that board
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          op        number of this operation at the source's end
--          id        the channel's id
--          printer   the channel's printer, or empty
--          user      the channel's user, or * for all
--          data      the body, or the key of the body
--          kept      body where data is the body, ref where it is a key
--          trace     the sender's trace context, or empty
--          field*    the board in streams
-- RETURNS  OK | NO_LISTENERS | WAITING | CLOSED closer | GONE | NOT_YOURS | GAP | NO_BODY | EPOCH epoch
--          | LAPSED
-- ATOMIC   A registration that arrives meanwhile is counted and offered, or neither (D17).

-- @include shared/guard
-- @include shared/append
-- @include shared/board

local meta, leases, channel, log, streams, body = unpack(KEYS, 1, 6)
local run, epoch, session, op, id, printer, user, data, kept, trace = unpack(ARGV, 1, 10)

local refusal, now, bell, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, holder, last, answer, closer =
  unpack(redis.call('HMGET', channel, 'state', 'session', 'op', 'word', 'closer'))
if not state then return { 'GONE' } end
if holder ~= session then return { 'NOT_YOURS' } end
if last == op then return { answer } end
if tonumber(last) + 1 ~= tonumber(op) then return { 'GAP' } end
if state == 'closed' then return { 'CLOSED', closer } end
if state ~= 'open' then return { 'WAITING' } end
if redis.call('EXISTS', body) == 0 then return { 'NO_BODY' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('XLEN', log)
local boards = boards_from(7, 11, streams, floor)
local listeners, offers, numbers = 0, {}, {}
for i = 0, #boards.numbers - 1 do
  listeners = listeners + boards.listening[i + 1]
  offers[i + 1] = entry_id(epoch, boards.numbers[i + 1])
  numbers[2 * i + 1], numbers[2 * i + 2] = ARGV[11 + i], boards.numbers[i + 1]
end
local word = listeners > 0 and 'OK' or 'NO_LISTENERS'
redis.call('HSET', channel, 'state', 'offered', 'op', op, 'word', word, 'offers', table.concat(offers, ' '))
redis.call('HSET', streams, unpack(numbers))
if kept == 'ref' then
  redis.call('HSET', channel, 'held', body)
  redis.call('PERSIST', body)
end
local at = string.format('%.0f', now)
redis.call('XADD', log, '*', unpack(traced({ 'event', 'notification', 'by', 'source', 'at', at, kept, data }, trace)))
local fields = traced({ 'event', 'offer', 'channel', id, 'printer', printer, 'user', user, 'source', session,
  'at', at, kept, data }, trace)
for i = 0, #offers - 1 do put_on(bell, boards, i, offers[i + 1], fields) end
return { word }
