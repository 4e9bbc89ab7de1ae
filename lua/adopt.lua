-- adopt: a replica carries on a dialog of its pool whose replica left or died.
--
-- It gets a new fencing token, which names the acquisition that it descends from: the source, who
-- pinned that, accepts it, and whoever carried the dialog before is refused.
--
-- KEYS     meta      hash
--          leases    zset
--          channel   hash
--          log       stream  the conversation
--          streams   hash
--          waiting   set     the pool's dialogs that wait for a replica
--          held      set     what the caller's session holds
--          inbox     stream  the source's inbox
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the channel's id
--          pool      the pool's registration
--          field     the source's inbox in streams
-- RETURNS  OK token, last operation of the pool's end, how often it was adopted | GONE | NOT_YOURS
--          | EPOCH epoch | LAPSED
-- ATOMIC   Of two replicas that reach for one dialog exactly one carries it on.

-- @include shared/guard
-- @include shared/append

local meta, leases, channel, log, streams, waiting, held, inbox = unpack(KEYS, 1, 8)
local run, epoch, session, id, pool, field = unpack(ARGV, 1, 6)

local refusal, now, bell = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, owner, owner_session, token, adopted, op =
  unpack(redis.call('HMGET', channel, 'state', 'owner', 'owner_session', 'token', 'adopted', 'op:' .. pool))
local dialog = 'dialog:' .. id .. ':' .. pool
if state == 'closed' or owner ~= pool then
  redis.call('SREM', waiting, dialog)
  return { 'GONE' }
end
if owner_session == session then return { 'OK', token, op, adopted or '0' } end
if owner_session ~= pool then
  redis.call('SREM', waiting, dialog)
  return { 'NOT_YOURS' }
end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('XLEN', log)
redis.call('XLEN', inbox)
redis.call('HLEN', streams)
redis.call('SCARD', held)
redis.call('SREM', waiting, dialog)
adopted = string.format('%.0f', (adopted or 0) + 1)
token = string.match(token, '^[^/]*') .. '/' .. epoch .. '-' .. adopted
redis.call('HSET', channel, 'owner_session', session, 'token', token, 'adopted', adopted)
redis.call('SADD', held, dialog)
redis.call('XADD', log, '*', 'event', 'adopted', 'by', session, 'at', string.format('%.0f', now))
tell(bell, inbox, streams, field, epoch,
  { 'event', 'moved', 'to', 'source', 'channel', id, 'registration', pool, 'session', session, 'token', token })
return { 'OK', token, op, adopted }
