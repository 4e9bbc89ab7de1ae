-- listener_close: one listener's end of a channel declines, closes, lets go, or is run down.
--
-- Before anyone answered, a close with data acquires and closes in one step (R78), one without
-- leaves the channel to the others (R79). A loser's close succeeds and says so (R83). The implicit
-- reference of the handle is dropped exactly once (R107 to R117).
--
-- KEYS     meta      hash
--          leases    zset
--          channels  hash    open channel -> what it is
--          channel   hash
--          log       stream  the conversation
--          streams   hash
--          held      set     what the listener's session holds
--          inbox     stream  the source's inbox
--          sources   set     what the source's session holds
--          asked     string  the initial notification's body, where kept by reference; or the channel again
--          body      string  the reason's body, likewise
--          board*    stream  the boards that the channel was offered on
--          room*     zset    who listens to that board
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          op        number of this operation at this handle; the next one where it is run down
--          id        the channel's id
--          handle    id of the listener's registration
--          holder    the listener's session
--          kind      close, release, abandon (the client found that Redis forgot), or run-down
--          user      that registration's user
--          field     the source's inbox in streams
--          keep      ms that the closed channel still answers
--          data      the reason, or the key of the reason, or empty
--          kept      body, ref, or none where no reason was given
--          field*    the board in streams
-- RETURNS  OK | RELEASED | ACQUIRED by | CLOSED closer | DECLINED | NOT_OFFERED | VIOLATION | GONE
--          | NOT_YOURS | GAP | NO_BODY | EPOCH epoch | LAPSED
-- ATOMIC   A final answer that races with other answers and with the source's close has one place in their order.

-- @include shared/guard
-- @include shared/append
-- @include shared/board

local meta, leases, channels, channel, log, streams, held, inbox, sources, asked, body = unpack(KEYS, 1, 11)
local run, epoch, session, op, id, handle, holder, kind, user, field, keep, data, kept = unpack(ARGV, 1, 13)

local refusal, now, bell, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, owner, owner_session, token, by, closer, offers, last, answer, dropped =
  unpack(redis.call('HMGET', channel, 'state', 'owner', 'owner_session', 'token', 'owner_user', 'closer', 'offers',
    'op:' .. handle, 'word:' .. handle, 'dropped:' .. handle))
local dialog = 'dialog:' .. id .. ':' .. handle
local dying = kind == 'run-down' or kind == 'abandon'
if kind == 'run-down' and not is_dead(leases, holder) then return { 'NOT_YOURS' } end
if kind ~= 'run-down' and holder ~= session then return { 'NOT_YOURS' } end
if dying or not state or state == 'closed' then redis.call('SREM', held, dialog) end
if not state then return { 'GONE' } end
if owner == handle and owner_session ~= holder then return { 'NOT_YOURS' } end
if last == op then return { answer, by } end
if not dying and tonumber(last or 0) + 1 ~= tonumber(op) and state ~= 'closed' then return { 'GAP' } end
if dying and owner ~= handle then return { 'OK' } end

-- Ends this handle alone: the channel goes on without it, or was over before.
local function finish(word)
  redis.call('SREM', held, dialog)
  redis.call('HSET', channel, 'op:' .. handle, op, 'word:' .. handle, word,
    'dropped:' .. handle, kind == 'close' and 'closed' or 'released')
  if not dropped then redis.call('HINCRBY', channel, 'drops', 1) end
  return { word, by }
end

if kind == 'release' and dropped == 'closed' then return finish('RELEASED') end
if kind == 'release' and dropped then return { 'VIOLATION' } end
if owner and owner ~= handle and kind == 'release' then return finish('RELEASED') end
if owner and owner ~= handle and dropped then return { 'CLOSED', handle } end
if owner and owner ~= handle then return finish('ACQUIRED') end
if state == 'closed' and kind == 'release' then return { 'VIOLATION' } end
if state == 'closed' then return { 'CLOSED', closer } end
if dropped then return { 'DECLINED' } end
if state == 'open' then return { 'NOT_OFFERED' } end
if kind == 'release' and state == 'answered' then return { 'VIOLATION' } end
if state == 'offered' and kind == 'release' then return finish('RELEASED') end
if state == 'offered' and kept == 'none' then return finish('OK') end
if redis.call('EXISTS', body) == 0 then return { 'NO_BODY' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('XLEN', log)
redis.call('XLEN', inbox)
redis.call('SCARD', held)
redis.call('SCARD', sources)
local boards = boards_from(12, 14, streams, floor)
redis.call('HDEL', channels, id)
redis.call('SREM', sources, 'channel:' .. id)
local word = finish(kind == 'release' and 'RELEASED' or 'OK')[1]
redis.call('HSET', channel, 'state', 'closed', 'closer', handle, 'dropped', 'told')
redis.call('HINCRBY', channel, 'drops', 1)
local at = string.format('%.0f', now)
local closed = { 'event', 'closed', 'channel', id, 'registration', handle, 'user', user, 'at', at }
if state == 'offered' then
  token = epoch .. ':' .. handle
  redis.call('HSET', channel, 'owner', handle, 'owner_session', session, 'owner_user', user, 'token', token)
  withdraw(bell, meta, streams, boards, epoch, floor, offers,
    { 'event', 'acquired', 'channel', id, 'registration', handle, 'user', user })
end
if kept ~= 'none' then
  closed[#closed + 1] = kept
  closed[#closed + 1] = data
end
redis.call('XADD', log, '*', unpack(closed))
tell(bell, inbox, streams, field, epoch, { 'to', 'source', 'token', token, unpack(closed) })
redis.call('PEXPIRE', log, keep)
redis.call('PEXPIRE', asked, keep)
redis.call('PEXPIRE', channel, keep)
return { word }
