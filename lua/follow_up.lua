-- follow_up: the source speaks again in a dialog; only the owner hears it (R86).
--
-- KEYS     meta      hash
--          leases    zset
--          channel   hash
--          log       stream  the conversation
--          streams   hash
--          inbox     stream  the owner's inbox
--          body      string  the body, where it is kept by reference; otherwise the channel again
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          op        number of this operation at the source's end
--          id        the channel's id
--          token     the fencing token of the acquisition that the source saw
--          listening session of that owner
--          field     that session's inbox in streams
--          data      the body, or the key of the body
--          kept      body where data is the body, ref where it is a key
--          trace     the sender's trace context, or empty
-- RETURNS  OK | WAITING | CLOSED closer | GONE | NOT_YOURS | GAP | MOVED session | NO_BODY | EPOCH epoch
--          | LAPSED
-- ATOMIC   Half-duplex: one turn, one notification, and none after a close (R87, R104).

-- @include shared/guard
-- @include shared/append

local meta, leases, channel, log, streams, inbox, body = unpack(KEYS, 1, 7)
local run, epoch, session, op, id, token, listening, field, data, kept, trace = unpack(ARGV, 1, 11)

local refusal, now, bell = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, holder, last, answer, closer, owner, owner_token, owner_session =
  unpack(redis.call('HMGET', channel, 'state', 'session', 'op', 'word', 'closer', 'owner', 'token', 'owner_session'))
if not state then return { 'GONE' } end
if holder ~= session then return { 'NOT_YOURS' } end
if last == op then return { answer } end
if tonumber(last) + 1 ~= tonumber(op) then return { 'GAP' } end
if state == 'closed' then return { 'CLOSED', closer } end
if state ~= 'answered' then return { 'WAITING' } end
if string.match(owner_token, '^[^/]*') ~= token then return { 'NOT_YOURS' } end
if owner_session ~= listening then return { 'MOVED', owner_session } end
if redis.call('EXISTS', body) == 0 then return { 'NO_BODY' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('XLEN', log)
redis.call('XLEN', inbox)
redis.call('HLEN', streams)
redis.call('HSET', channel, 'state', 'asked', 'op', op, 'word', 'OK')
local at = string.format('%.0f', now)
redis.call('XADD', log, '*', unpack(traced({ 'event', 'notification', 'by', 'source', 'at', at, kept, data }, trace)))
tell(bell, inbox, streams, field, epoch, traced({ 'event', 'notification', 'to', 'owner', 'channel', id,
  'registration', owner, 'op', op, 'at', at, kept, data }, trace))
return { 'OK' }
