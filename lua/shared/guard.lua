-- guard: what every acting script asks before it compares anything else.
--
-- Is this the Redis that the caller knows (run id, epoch), and is the caller alive (lease)?
-- A run id that differs raises the epoch: the server is another process now, and may have
-- forgotten something, so each client must check what it holds before it acts again (D13).
-- An epoch is the Redis time, in milliseconds, at which it began.

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function raise_epoch(meta, run, old, now)
  local epoch = string.format('%.0f', math.max(now, (old or 0) + 1))
  redis.call('HDEL', meta, 'run') -- first, so that a full Redis does not refuse the script
  redis.call('HSET', meta, 'run', run, 'epoch', epoch)
  return epoch
end

-- Whether nobody can act for this session any more: swept, or never here.
local function is_dead(leases, session)
  return tonumber(redis.call('ZSCORE', leases, session) or 0) == 0
end

-- The answer to a session that Redis does not know. A replica that has not caught up knows none: the
-- write, of nothing, is for it to be refused instead.
local function lapsed(leases)
  redis.call('ZREM', leases, '')
  return { 'LAPSED' }
end

-- Returns a refusal, or nil and what the scripts go on with: the time in milliseconds, the bell
-- command, the floor under the numbers of new streams, and which list of pools is the present one.
-- No lease ends before one lease time has passed in this epoch: an outage kills nobody.
local function guard(meta, leases, run, epoch, session)
  local run_known, epoch_known, grace, bell, floor, pools =
    unpack(redis.call('HMGET', meta, 'run', 'epoch', 'grace', 'bell', 'floor', 'pools'))
  if not run_known then return lapsed(leases) end
  local now = milliseconds()
  if run_known ~= run then epoch_known = raise_epoch(meta, run, epoch_known, now) end
  local deadline = tonumber(redis.call('ZSCORE', leases, session) or 0)
  if deadline == 0 then return lapsed(leases) end
  if epoch_known ~= epoch then return { 'EPOCH', epoch_known } end
  if math.max(deadline, epoch_known + grace) < now then return lapsed(leases) end
  return nil, now, bell, tonumber(floor), pools or '0'
end
