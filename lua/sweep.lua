-- sweep: marks the sessions whose lease ran out as dead, for good, and names the dead.
--
-- KEYS     meta      hash
--          leases    zset
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          most      how many to mark and to name at the most
-- RETURNS  OK session... | EPOCH epoch | LAPSED
-- ATOMIC   Once marked, no renewal and no later epoch revives a session whose things are being ended.

-- @include shared/guard

local meta, leases = unpack(KEYS, 1, 2)
local run, epoch, session, most = unpack(ARGV, 1, 4)

local refusal, now = guard(meta, leases, run, epoch, session)
if refusal then return refusal end

if now > epoch + redis.call('HGET', meta, 'grace') then
  local late = redis.call('ZRANGEBYSCORE', leases, '(0', '(' .. string.format('%.0f', now), 'LIMIT', 0, most)
  for _, dead in ipairs(late) do
    redis.call('ZREM', leases, dead) -- first, so that a full Redis does not refuse the script
    redis.call('ZADD', leases, 0, dead)
  end
end
return { 'OK', unpack(redis.call('ZRANGEBYSCORE', leases, 0, 0, 'LIMIT', 0, most)) }
