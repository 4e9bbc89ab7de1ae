-- unregister: a registration ends, by its holder, with the right that it stood on, or after its holder's death.
--
-- What a unidirectional one has not fetched is discarded (R33); dialogs that a bidirectional one
-- was handed go on (R34).
--
-- KEYS     meta      hash
--          leases    zset
--          counts    hash    printer|type -> registrations
--          registrations  hash  registration -> its record (JSON)
--          streams   hash
--          held      set     what the holder's session holds
--          inbox     stream  the holder's inbox
--          stream*   stream  an audience of this registration
--          room*     zset    its room
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the registration's id
--          holder    the session that holds it
--          kind      unregister, revoke, delete (its printer was deleted) or run-down
--          group     name of the consumer group
--          count     printer|type
--          inbox_field  the holder's inbox in streams
--          field*    the audience in streams
-- RETURNS  OK | GONE | NOT_YOURS | EPOCH epoch | LAPSED
-- ATOMIC   The next send's count must not include a registration that can no longer hear.

-- @include shared/guard
-- @include shared/append

local meta, leases, counts, registrations, streams, held, inbox = unpack(KEYS, 1, 7)
local run, epoch, session, id, holder, kind, group, count, inbox_field = unpack(ARGV, 1, 9)

local refusal, _, bell, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local record = redis.call('HGET', registrations, id)
if kind == 'run-down' and not is_dead(leases, holder) then return { 'NOT_YOURS' } end
if not record and kind == 'run-down' then redis.call('SREM', held, 'registration:' .. id) end
if not record and kind ~= 'unregister' then return { 'GONE' } end
if record and cjson.decode(record).session ~= holder then return { 'NOT_YOURS' } end
if kind == 'unregister' and holder ~= session then return { 'NOT_YOURS' } end
local stands = record -- or, where somebody deleted that, its place in a room
for i = 0, (#KEYS - 7) / 2 - 1 do stands = stands or redis.call('ZSCORE', KEYS[9 + 2 * i], group) end
if not stands then
  redis.call('SREM', held, 'registration:' .. id)
  return { 'GONE' }
end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('XLEN', inbox)
redis.call('SCARD', held)
redis.call('HLEN', counts)
redis.call('HLEN', streams)
for i = 0, (#KEYS - 7) / 2 - 1 do
  redis.call('XLEN', KEYS[8 + 2 * i])
  redis.call('ZCARD', KEYS[9 + 2 * i])
end
redis.call('HDEL', registrations, id)
redis.call('SREM', held, 'registration:' .. id)
for i = 0, (#KEYS - 7) / 2 - 1 do
  local stream, room, field = KEYS[8 + 2 * i], KEYS[9 + 2 * i], ARGV[10 + i]
  local score = redis.call('ZSCORE', room, group) or 'inf' -- of a board, or nothing of it is left
  redis.call('ZREM', room, group)
  if redis.call('EXISTS', stream) == 1 then redis.call('XGROUP', 'DESTROY', stream, group) end
  if score ~= 'inf' or redis.call('XLEN', stream) == 0 then
    floor = retire(meta, stream, room, streams, field, floor)
  end
end
if redis.call('HINCRBY', counts, count, -1) <= 0 then redis.call('HDEL', counts, count) end
local why = kind == 'revoke' and 'right revoked' or kind == 'delete' and 'printer deleted'
if not record then return { 'GONE' } end -- nothing was left, or somebody deleted the record
if why then tell(bell, inbox, streams, inbox_field, epoch, { 'event', 'ended', 'registration', id, 'why', why }) end
return { 'OK' }
