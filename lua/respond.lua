-- respond: a listener answers; the first answer on a channel acquires it, for ever (R76, R85).
--
-- Acquiring sets the owner, mints its fencing token and takes the open offer off the boards: that
-- one field closes everybody else.
--
-- KEYS     meta      hash
--          leases    zset
--          channel   hash
--          log       stream  the conversation
--          streams   hash
--          inbox     stream  the source's inbox
--          held      set     what the caller's session holds
--          asked     string  the initial notification's body, where kept by reference; or the channel again
--          body      string  the answer's body, likewise
--          board*    stream  the boards that the channel was offered on
--          room*     zset    who listens to that board
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          op        number of this operation at this handle
--          id        the channel's id
--          handle    id of the answering registration
--          user      that registration's user
--          field     the source's inbox in streams
--          keep      ms that the initial notification's body stays
--          data      the body, or the key of the body
--          kept      body where data is the body, ref where it is a key
--          turn      ends where a pool's handler is done with its turn; otherwise empty
--          trace     the answerer's trace context, or empty
--          field*    the board in streams
-- RETURNS  OK token | ACQUIRED by | CLOSED closer | DECLINED | IN_PROGRESS | NOT_OFFERED | GONE
--          | GAP | NOT_YOURS | NO_BODY | EPOCH epoch | LAPSED
-- ATOMIC   Compare, own, and take the offer away in one step: exactly one of many answers wins.

-- @include shared/guard
-- @include shared/append
-- @include shared/board

local meta, leases, channel, log, streams, inbox, held, asked, body = unpack(KEYS, 1, 9)
local run, epoch, session, op, id, handle, user, field, keep, data, kept, turn, trace = unpack(ARGV, 1, 13)

local refusal, now, bell, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local state, owner, owner_session, token, by, closer, offers, last, answer, dropped =
  unpack(redis.call('HMGET', channel, 'state', 'owner', 'owner_session', 'token', 'owner_user', 'closer', 'offers',
    'op:' .. handle, 'word:' .. handle, 'dropped:' .. handle))
if not state then return { 'GONE' } end
if owner == handle and owner_session ~= session then return { 'NOT_YOURS' } end -- another replica's words
if owner and last == op then return { answer, token } end
if owner and owner ~= handle then return { 'ACQUIRED', by } end
if state == 'closed' then return { 'CLOSED', closer } end
if dropped then return { 'DECLINED' } end
if tonumber(last or 0) + 1 ~= tonumber(op) then return { 'GAP' } end
if state == 'answered' then return { 'IN_PROGRESS' } end
if state == 'open' then return { 'NOT_OFFERED' } end
if redis.call('EXISTS', body) == 0 then return { 'NO_BODY' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('XLEN', log)
redis.call('XLEN', inbox)
redis.call('SCARD', held)
local boards = boards_from(10, 14, streams, floor)
token = token or epoch .. ':' .. handle
redis.call('HSET', channel, 'state', 'answered', 'op:' .. handle, op, 'word:' .. handle, 'OK', 'owner', handle,
  'owner_session', session, 'owner_user', user, 'token', token)
if not owner then
  redis.call('SADD', held, 'dialog:' .. id .. ':' .. handle)
  if asked ~= channel then redis.call('PEXPIRE', asked, keep) end
  withdraw(bell, meta, streams, boards, epoch, floor, offers,
    { 'event', 'acquired', 'channel', id, 'registration', handle, 'user', user })
end
local at = string.format('%.0f', now)
redis.call('XADD', log, '*', 'event', 'response', 'by', user, 'at', at, 'turn', turn, kept, data)
tell(bell, inbox, streams, field, epoch,
  traced({ 'event', 'response', 'to', 'source', 'channel', id, 'registration', handle, 'user', user,
    'session', session, 'op', op, 'token', token, 'at', at, kept, data }, trace))
return { 'OK', token }
