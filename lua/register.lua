-- register: a listener registers; each registration is a consumer group on the streams of its audiences.
--
-- A unidirectional one hears what is sent from now on (R54); a bidirectional one also finds the
-- questions that are still open (R68). The client subscribes to the bells first, registers, then
-- reads from the number that is answered here: nothing falls between.
--
-- KEYS     meta      hash
--          leases    zset
--          grants    hash    printer|user -> mask of rights; where none is asked for, meta again
--          counts    hash    printer|type -> registrations
--          registrations  hash  registration -> its record (JSON)
--          streams   hash
--          held      set     what the caller's session holds
--          stream*   stream  an audience of this registration
--          room*     zset    its room
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the registration's id, minted by the caller
--          record    JSON object: printer, type, style, user, filter, printers, needed, source, buffer, session
--          group     name of the consumer group: type:user:id
--          right     field in grants that must hold the right that it stands on; or empty
--          needed    mask of the right
--          count     printer|type
--          limit     how many registrations that may have
--          buffer    how many unread notifications of an audience it holds; empty where bidirectional
--          field*    the audience in streams
-- RETURNS  OK, 1 where the id was known before, then for each audience its last number and the
--          registration's room | DENIED | LIMIT | EPOCH epoch | LAPSED
-- ATOMIC   The groups begin at one instant, and the count and the right hold at that instant (R17, R24).

-- @include shared/guard
-- @include shared/append
-- @include shared/rights

local meta, leases, grants, counts, registrations, streams, held = unpack(KEYS, 1, 7)
local run, epoch, session, id, record, group, right, needed, count, limit, buffer = unpack(ARGV, 1, 11)

local refusal, now, _, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local known = redis.call('HEXISTS', registrations, id) == 1
-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('SCARD', held)
redis.call('HLEN', streams)
for i = 0, (#KEYS - 7) / 2 - 1 do
  redis.call('XLEN', KEYS[8 + 2 * i])
  redis.call('ZCARD', KEYS[9 + 2 * i])
end
if not known then
  if right ~= '' and not has(redis.call('HGET', grants, right), needed) then return { 'DENIED' } end
  if tonumber(redis.call('HGET', counts, count) or 0) >= tonumber(limit) then return { 'LIMIT' } end
  local entry = cjson.decode(record)
  entry.since = now
  redis.call('HSET', registrations, id, cjson.encode(entry))
  redis.call('HINCRBY', counts, count, 1)
  redis.call('SADD', held, 'registration:' .. id)
end
local answer = { 'OK', known and 1 or 0 }
for i = 0, (#KEYS - 7) / 2 - 1 do
  local stream, room, field = KEYS[8 + 2 * i], KEYS[9 + 2 * i], ARGV[12 + i]
  local number = last_number(stream, streams, field, floor)
  if not known then
    redis.call('HSETNX', streams, field, number)
    redis.call('XGROUP', 'CREATE', stream, group, buffer == '' and '0' or entry_id(epoch, number), 'MKSTREAM')
    redis.call('ZADD', room, buffer == '' and 'inf' or number + buffer, group)
  end
  answer[#answer + 1] = number
  answer[#answer + 1] = redis.call('ZSCORE', room, group) or '-1'
end
return answer
