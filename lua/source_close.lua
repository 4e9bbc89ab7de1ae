-- source_close: the source's end of a channel closes, lets go, or is run down after its death.
--
-- The implicit reference of the source's handle is dropped exactly once: here, or when the other
-- end's close is told. A second drop is answered, not done (R107 to R117).
--
-- KEYS     meta      hash
--          leases    zset
--          channels  hash    open channel -> what it is
--          channel   hash
--          log       stream  the conversation
--          streams   hash
--          held      set     what the source's session holds
--          inbox     stream  the owner's inbox; without an owner the source's
--          dialogs   set     what the owner's session holds; without an owner the source's
--          asked     string  the initial notification's body, where kept by reference; or the channel again
--          board*    stream  the boards that the channel is offered on
--          room*     zset    who listens to that board
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          op        number of this operation at the source's end; the next one where it is run down
--          id        the channel's id
--          holder    the source's session
--          kind      close, release, abandon (the client found that Redis forgot), or run-down
--          listening the owner's session, or empty
--          field     the inbox in streams
--          keep      ms that the closed channel still answers
--          data      the reason, or the key of the reason, or empty
--          kept      body, ref, or none where no reason was given
--          field*    the board in streams
-- RETURNS  OK | RELEASED | CLOSED closer | NOT_OPENED | VIOLATION | GONE | NOT_YOURS | GAP | MOVED session
--          | EPOCH epoch | LAPSED
-- ATOMIC   Of two ends that close at once one succeeds, and nothing is delivered after it (R104, R105).

-- @include shared/guard
-- @include shared/append
-- @include shared/board

local meta, leases, channels, channel, log, streams, held, inbox, dialogs, asked = unpack(KEYS, 1, 10)
local run, epoch, session, op, id, holder, kind, listening, field, keep, data, kept = unpack(ARGV, 1, 12)

local refusal, now, bell, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, source, style, last, answer, owner, owner_session, closer, offers, dropped =
  unpack(redis.call('HMGET', channel, 'state', 'session', 'style', 'op', 'word', 'owner', 'owner_session', 'closer',
    'offers', 'dropped'))
if kind == 'run-down' and not is_dead(leases, holder) then return { 'NOT_YOURS' } end
if not state and (kind == 'run-down' or holder == session) then
  redis.call('SREM', held, 'channel:' .. id)
  redis.call('HDEL', channels, id)
  redis.call('PEXPIRE', log, keep)
  unlist(bell, meta, streams, boards_from(11, 13, streams, floor), epoch, floor, id)
end
if not state then return { 'GONE' } end
if source ~= holder then return { 'NOT_YOURS' } end
if kind ~= 'run-down' and holder ~= session then return { 'NOT_YOURS' } end
if kind ~= 'run-down' and last == op then return { answer } end
if kind ~= 'run-down' and kind ~= 'abandon' and tonumber(last) + 1 ~= tonumber(op) then return { 'GAP' } end
if state == 'closed' and kind == 'run-down' then redis.call('SREM', held, 'channel:' .. id) end
if kind == 'release' and dropped == 'closed' then
  redis.call('SREM', held, 'channel:' .. id)
  redis.call('HSET', channel, 'op', op, 'word', 'RELEASED', 'dropped', 'released')
  return { 'RELEASED' }
end
if kind == 'release' and state == 'closed' then return { 'VIOLATION' } end
if state == 'closed' then return { 'CLOSED', closer } end
if kind == 'close' and state == 'open' and (style == 'bi' or last == '0') then return { 'NOT_OPENED' } end
if kind == 'release' and state == 'offered' and answer ~= 'NO_LISTENERS' then return { 'VIOLATION' } end
if kind == 'release' and state == 'asked' then return { 'VIOLATION' } end
if owner and owner_session ~= listening then return { 'MOVED', owner_session } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('XLEN', log)
redis.call('HLEN', streams)
redis.call('XLEN', inbox)
redis.call('SCARD', held)
redis.call('SCARD', dialogs)
local boards = boards_from(11, 13, streams, floor)
local word = kind == 'release' and 'RELEASED' or 'OK'
local is_asked = kind == 'close' or kind == 'release' -- by its source, whose operation this then is
redis.call('HDEL', channels, id)
redis.call('HSET', channel, 'state', 'closed', 'closer', 'source', 'op', is_asked and op or last,
  'word', is_asked and word or answer or '', 'dropped', kind == 'close' and 'closed' or 'released')
redis.call('HINCRBY', channel, 'drops', 1)
redis.call('SREM', held, 'channel:' .. id)
local at = string.format('%.0f', now)
local by = is_asked and 'source' or ''
local closed = { 'event', 'closed', 'channel', id, 'by', by, 'at', at }
if kept ~= 'none' then
  closed[#closed + 1] = kept
  closed[#closed + 1] = data
  redis.call('HSET', channel, 'reason_' .. kept, data)
end
if state == 'offered' then withdraw(bell, meta, streams, boards, epoch, floor, offers, closed) end
if owner then
  redis.call('SREM', dialogs, 'dialog:' .. id .. ':' .. owner)
  redis.call('HSET', channel, 'dropped:' .. owner, 'told')
  redis.call('HINCRBY', channel, 'drops', 1)
  tell(bell, inbox, streams, field, epoch, { 'to', 'owner', 'registration', owner, unpack(closed) })
end
if style == 'bi' then
  redis.call('XADD', log, '*', unpack(closed))
  redis.call('PEXPIRE', log, keep)
end
redis.call('PEXPIRE', asked, keep)
redis.call('PEXPIRE', channel, keep)
return { word }
