-- grant: gives a user rights on one printer or server, or takes them away.
--
-- KEYS     meta      hash
--          leases    zset
--          grants    hash    printer|user -> mask of rights
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          field     printer|user
--          mask      the rights
--          give      1 to give, 0 to take away
-- RETURNS  OK mask now | EPOCH epoch | LAPSED
-- ATOMIC   Two administrators who change one mask must not undo each other.

-- @include shared/guard
-- @include shared/rights

local meta, leases, grants = unpack(KEYS, 1, 3)
local run, epoch, session, field, mask, give = unpack(ARGV, 1, 6)

local refusal = guard(meta, leases, run, epoch, session)
if refusal then return refusal end

local was = tonumber(redis.call('HGET', grants, field) or 0)
local now = change(was, tonumber(mask), give == '1')
if now == 0 then
  redis.call('HDEL', grants, field)
else
  redis.call('HSET', grants, field, now)
end
return { 'OK', now }
