-- server_close: the print server closes a channel, because its printer was deleted; both ends are told.
--
-- Neither end asked for it: no operation of theirs is numbered, and the implicit references of the
-- source and the owner are dropped as if the other end had closed.
--
-- KEYS     meta      hash
--          leases    zset
--          grants    hash    only a credential that may give rights may do this
--          channels  hash    open channel -> what it is
--          channel   hash
--          log       stream  the conversation
--          streams   hash
--          sources   set     what the source's session holds
--          source_inbox stream  the source's inbox
--          dialogs   set     what the owner's session holds; without an owner the source's
--          owner_inbox stream  the owner's inbox; without an owner the source's
--          asked     string  the initial notification's body, where kept by reference; or the channel again
--          board*    stream  the boards that the channel is offered on
--          room*     zset    who listens to that board
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the channel's id
--          holder    the source's session
--          source_field the source's inbox in streams
--          listening the owner's session, or empty
--          owner_field that session's inbox in streams
--          keep      ms that the closed channel still answers
--          field*    the board in streams
-- RETURNS  OK | CLOSED closer | GONE | MOVED | EPOCH epoch | LAPSED
-- ATOMIC   What races with it, an answer or either end's close, is before it or is refused (R104, R106).

-- @include shared/guard
-- @include shared/append
-- @include shared/board

local meta, leases, grants, channels, channel, log, streams, sources, source_inbox, dialogs, owner_inbox, asked =
  unpack(KEYS, 1, 12)
local run, epoch, session, id, holder, source_field, listening, owner_field, keep = unpack(ARGV, 1, 9)

local refusal, now, bell, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, source, style, owner, owner_session, closer, offers, held =
  unpack(redis.call('HMGET', channel, 'state', 'session', 'style', 'owner', 'owner_session', 'closer', 'offers',
    'held'))
if not state then return { 'GONE' } end
if closer == 'server' then return { 'OK' } end
if state == 'closed' then return { 'CLOSED', closer } end
if source ~= holder or (owner_session or '') ~= listening or (held or channel) ~= asked then return { 'MOVED' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('HLEN', grants)
redis.call('XLEN', log)
redis.call('HLEN', streams)
redis.call('SCARD', sources)
redis.call('XLEN', source_inbox)
redis.call('SCARD', dialogs)
redis.call('XLEN', owner_inbox)
local boards = boards_from(13, 10, streams, floor)
redis.call('HDEL', channels, id)
redis.call('SREM', sources, 'channel:' .. id)
redis.call('HSET', channel, 'state', 'closed', 'closer', 'server', 'dropped', 'told')
redis.call('HINCRBY', channel, 'drops', 1)
local closed = { 'event', 'closed', 'channel', id, 'by', 'server', 'at', string.format('%.0f', now) }
if state == 'offered' then withdraw(bell, meta, streams, boards, epoch, floor, offers, closed) end
tell(bell, source_inbox, streams, source_field, epoch, { 'to', 'source', unpack(closed) })
if owner then
  redis.call('SREM', dialogs, 'dialog:' .. id .. ':' .. owner)
  redis.call('HSET', channel, 'dropped:' .. owner, 'told')
  redis.call('HINCRBY', channel, 'drops', 1)
  tell(bell, owner_inbox, streams, owner_field, epoch, { 'to', 'owner', 'registration', owner, unpack(closed) })
end
if style == 'bi' then
  redis.call('XADD', log, '*', unpack(closed))
  redis.call('PEXPIRE', log, keep)
end
redis.call('PEXPIRE', asked, keep)
redis.call('PEXPIRE', channel, keep)
return { 'OK' }
