-- offer_again: an open question goes back on the boards that lost it.
--
-- Somebody deleted them, or Redis evicted them. Whoever was offered it keeps it, and hears it no second
-- time (R72); whoever comes late, and each pool, finds it on its board (R68, R69).
--
-- KEYS     meta      hash
--          leases    zset
--          channel   hash
--          log       stream  the conversation, of which the question is the first entry
--          streams   hash
--          board*    stream  open questions of an audience of this channel
--          room*     zset    who listens to that board
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the channel's id
--          printer   the channel's printer, or empty
--          user      the channel's user, or * for all
--          field*    the board in streams
-- RETURNS  OK on how many boards | FORGOTTEN | GONE | NOT_YOURS | EPOCH epoch | LAPSED
-- ATOMIC   Nobody may acquire the channel, or take the question back, while it is put there.

-- @include shared/guard
-- @include shared/append
-- @include shared/board

local meta, leases, channel, log, streams = unpack(KEYS, 1, 5)
local run, epoch, session, id, printer, user = unpack(ARGV, 1, 6)

local refusal, _, bell, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, holder, offers = unpack(redis.call('HMGET', channel, 'state', 'session', 'offers'))
if not state then return { 'GONE' } end
if holder ~= session then return { 'NOT_YOURS' } end
if state ~= 'offered' then return { 'OK', 0 } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
local boards = boards_from(6, 7, streams, floor)
local question = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local ids, lacking = {}, {}
for offer in string.gmatch(offers, '%S+') do ids[#ids + 1] = offer end
for i = 0, #ids - 1 do
  if #redis.call('XRANGE', KEYS[6 + 2 * i], ids[i + 1], ids[i + 1]) == 0 then lacking[#lacking + 1] = i end
end
if #lacking == 0 then return { 'OK', 0 } end
if not question then return { 'FORGOTTEN' } end

local fields = { 'event', 'offer', 'channel', id, 'printer', printer, 'user', user, 'source', session }
for n = 1, #question[2], 2 do
  local name, value = question[2][n], question[2][n + 1]
  if name ~= 'event' and name ~= 'by' then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end
for _, i in ipairs(lacking) do
  local number = boards.numbers[i + 1]
  ids[i + 1] = entry_id(epoch, number)
  redis.call('HSET', streams, ARGV[7 + i], number)
  put_on(bell, boards, i, ids[i + 1], fields)
end
redis.call('HSET', channel, 'offers', table.concat(ids, ' '))
return { 'OK', #lacking }
