-- delete_printer: tells whoever listens one way to a printer that it is gone: NOTIFICATION_RELEASE (R65).
--
-- It takes a number of each audience like a notification, but no room: it is never denied, and its
-- reader gives the place back at once. A registration hands it out when all its audiences told it.
--
-- KEYS     meta      hash
--          leases    zset
--          grants    hash    only a credential that may give rights may do this
--          streams   hash
--          stream*   stream  an audience of the printer
--          room*     zset    its room
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          deletion  id of this deletion, minted by the caller
--          part      which part of its audiences this is
--          printer   the printer
--          field*    the audience in streams
-- RETURNS  OK | EPOCH epoch | LAPSED
-- ATOMIC   Whoever was registered is told once, behind what was sent before, or not at all.

-- @include shared/guard
-- @include shared/append

local meta, leases, grants, streams = unpack(KEYS, 1, 4)
local run, epoch, session, deletion, part, printer = unpack(ARGV, 1, 6)

local refusal, now, bell, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
if redis.call('HGET', meta, 'deletion') == deletion .. ':' .. part then return { 'OK' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('HLEN', grants)
redis.call('HLEN', streams)
for i = 0, (#KEYS - 4) / 2 - 1 do
  redis.call('XLEN', KEYS[5 + 2 * i])
  redis.call('ZCARD', KEYS[6 + 2 * i])
end
redis.call('HDEL', meta, 'deletion') -- first, so that a full Redis does not refuse the script
redis.call('HSET', meta, 'deletion', deletion .. ':' .. part)
for i = 0, (#KEYS - 4) / 2 - 1 do
  local stream, room, field = KEYS[5 + 2 * i], KEYS[6 + 2 * i], ARGV[7 + i]
  if redis.call('ZCARD', room) > 0 then
    append(bell, stream, streams, field, epoch, floor,
      { 'event', 'release', 'deletion', deletion, 'printer', printer, 'at', string.format('%.0f', now) })
  end
end
return { 'OK' }
