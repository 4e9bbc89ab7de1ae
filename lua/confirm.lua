-- confirm: after a new epoch each end of a channel asks whether Redis still knows what it knows.
--
-- State that survived goes on; where Redis forgot an operation that was answered, or the owner,
-- both ends must end the channel: nothing is resurrected silently (D13). So must an end whose other end's
-- session is over: whoever runs a session down ends what it holds before, if Redis did not lose the list.
--
-- KEYS     meta      hash
--          leases    zset
--          channel   hash
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          handle    source, or the listener's registration
--          op        number of the last operation that this end saw answered
--          token     the fencing token that this end knows, or empty; the source knows the acquisition's
-- RETURNS  OK state | FORGOTTEN | GONE | EPOCH epoch | LAPSED
-- ATOMIC   The parts of the answer belong to one instant.

-- @include shared/guard

local meta, leases, channel = unpack(KEYS, 1, 3)
local run, epoch, session, handle, op, token = unpack(ARGV, 1, 6)

local refusal = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local fields = handle == 'source' and { 'op', 'owner_session' } or { 'op:' .. handle, 'session' }
local state, token_known, last, other = unpack(redis.call('HMGET', channel, 'state', 'token', unpack(fields)))
if not state then return { 'GONE' } end
if tonumber(last or 0) < tonumber(op) then return { 'FORGOTTEN' } end
if handle == 'source' and token_known then token_known = string.match(token_known, '^[^/]*') end
if token ~= '' and token_known ~= token then return { 'FORGOTTEN' } end
local in_pool = other and string.sub(other, 1, 1) == '~' -- it waits for a replica
if other and not in_pool and state ~= 'closed' and not redis.call('ZSCORE', leases, other) then
  return { 'FORGOTTEN' }
end
return { 'OK', state }
