-- fetch: a replica takes work in hand: what was handed back and is due, then what nobody had yet.
--
-- One that finds less than it has room for is idle from then on, and is woken by the next send, or
-- by whoever hands something back.
--
-- KEYS     meta      hash
--          leases    zset
--          pools     hash    pool's registration -> its record (JSON)
--          held      set     what the caller's session holds
--          inbox     stream  the caller's inbox: on its bell it is woken
--          idle      zset    inbox of a replica that waits for work -> what it has in hand
--          waiting   set     the pool's dialogs that wait for a replica
--          streams   hash
--          stream*   stream  the pool's own, or a board
--          returned* zset    entry that was handed back -> when it is due, ms
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the pool's registration
--          group     name of the consumer group
--          most      how many it has room for
--          carried   how many it has in hand
--          field*    the stream in streams
-- RETURNS  OK, ms until something that was handed back is due or -1, the dialogs that wait, then for
--          each stream: what was handed back, of each its id, how often it was delivered and its fields;
--          what nobody had yet, of each its id and its fields; and how many of the first of these may
--          have been delivered before in a way that Redis did not count
--          | GONE | NOT_JOINED | EPOCH epoch | LAPSED
-- ATOMIC   What comes between an empty look and the word that a replica waits would wake nobody.

-- @include shared/guard
-- @include shared/append
-- @include shared/pool

local meta, leases, pools, held, inbox, idle, waiting, streams = unpack(KEYS, 1, 8)
local run, epoch, session, id, group, most, carried = unpack(ARGV, 1, 7)

local refusal, now, _, floor = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
if redis.call('HEXISTS', pools, id) == 0 then return { 'GONE' } end
if redis.call('SISMEMBER', held, 'replica:' .. id) == 0 then return { 'NOT_JOINED' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('SCARD', waiting)
redis.call('HLEN', streams)
for i = 0, (#KEYS - 8) / 2 - 1 do
  redis.call('XLEN', KEYS[9 + 2 * i])
  redis.call('ZCARD', KEYS[10 + 2 * i])
end

-- What nobody had yet.
local function unread(stream, count)
  local found = redis.call('XREADGROUP', 'GROUP', group, session, 'COUNT', count, 'STREAMS', stream, '>')
  if not found or not found[1] then return {} end
  return found[2] or found[1][2] -- the in-memory double answers one level less
end

-- How many of the first may have been given to somebody before: those that a lost group may have had,
-- and those of an earlier epoch, for a Redis that begins one may have forgotten to whom it gave them.
local function doubtful_of(entries, epoch, lost)
  for n, entry in ipairs(entries) do
    local began, number = string.match(entry[1], '^(%d+)%-(%d+)$')
    if began == epoch and tonumber(number) > lost then return n - 1 end
  end
  return #entries
end

redis.call('ZREM', idle, inbox) -- takes no memory: a full Redis must not refuse who would empty it
local dialogs = redis.call('SRANDMEMBER', waiting, most)
local left, due, answer = tonumber(most) - #dialogs, -1, { 'OK', -1, dialogs }
for i = 0, (#KEYS - 8) / 2 - 1 do
  local stream, returned, field = KEYS[9 + 2 * i], KEYS[10 + 2 * i], ARGV[8 + i]
  local again = field .. ' again ' .. id -- number of the last entry that a group which is lost may have had
  if not has_group(stream, group) then -- it begins anew: what is not finished still lies in the stream
    redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
    redis.call('HSET', streams, again, last_number(stream, streams, field, floor))
  end
  local back, new, doubtful = {}, {}, 0
  for _, one in ipairs(redis.call('ZRANGEBYSCORE', returned, '-inf', string.format('%.0f', now), 'LIMIT', 0, left)) do
    redis.call('ZREM', returned, one)
    if is_there(stream, one) then
      local entry = redis.call('XCLAIM', stream, group, session, 0, one)[1]
      if entry then
        local _, times = in_hand(stream, group, one)
        back[#back + 1] = { one, times, entry[2] }
        left = left - 1
      end
    else
      redis.call('XACK', stream, group, one) -- a question that is open no more
    end
  end
  local first = redis.call('ZRANGE', returned, 0, 0, 'WITHSCORES')[2]
  if first and (due < 0 or first - now < due) then due = math.max(first - now, 0) end
  if left > 0 then
    new = unread(stream, left)
    left, doubtful = left - #new, doubtful_of(new, epoch, tonumber(redis.call('HGET', streams, again) or 0))
  end
  answer[#answer + 1] = { back, new, doubtful }
end
if left > 0 then redis.call('ZADD', idle, carried, inbox) end
answer[2] = due
return answer
