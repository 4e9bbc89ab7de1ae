-- create_pool: a pool begins to collect: a registration that no session holds.
--
-- A unidirectional one has a stream of its own, to which each send that concerns it is added; a
-- bidirectional one has groups on the boards that any listener for the same would hear. Sources
-- keep a list of a server's pools; raising `pools` in meta makes them read it anew.
--
-- KEYS     meta      hash
--          leases    zset
--          grants    hash    printer|user -> mask of rights; where none is asked for, meta again
--          counts    hash    printer|type -> registrations
--          pools     hash    pool's registration -> its record (JSON)
--          streams   hash
--          stream*   stream  its own, or a board
--          room*     zset    its room
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          epoch     the epoch that the caller knows
--          session   id of the caller's session
--          id        the pool's registration: its name and what it listens to
--          record    JSON: pool, printer, type, style, user, filter, printers, needed, source, buffer, everywhere, made
--          group     name of the consumer group: type:user:id
--          right     field in grants that must hold the right that it stands on; or empty
--          needed    mask of the right
--          count     printer|type
--          limit     how many registrations that may have
--          buffer    how many unfinished notifications it holds; empty where bidirectional
--          field*    the stream in streams
-- RETURNS  OK | KNOWN | DENIED | LIMIT | EPOCH epoch | LAPSED
-- ATOMIC   No send may find the pool in the list but not its stream, or the other way round.

-- @include shared/guard
-- @include shared/append
-- @include shared/pool
-- @include shared/rights

local meta, leases, grants, counts, pools, streams = unpack(KEYS, 1, 6)
local run, epoch, session, id, record, group, right, needed, count, limit, buffer = unpack(ARGV, 1, 11)

local refusal, now, _, floor, listed = guard(meta, leases, run, epoch, session)
if refusal then return refusal end
local known, entry = redis.call('HGET', pools, id), cjson.decode(record)
if known and entry.made and cjson.decode(known).made == entry.made then return { 'OK' } end
if known then return { 'KNOWN' } end
if right ~= '' and not has(redis.call('HGET', grants, right), needed) then return { 'DENIED' } end
if tonumber(redis.call('HGET', counts, count) or 0) >= tonumber(limit) then return { 'LIMIT' } end

-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
redis.call('HLEN', streams)
local many = redis.call('HLEN', pools)
local is_lost = many ~= tonumber(redis.call('HGET', meta, 'pooled') or many) -- somebody deleted the list
local was_there = false
for i = 0, (#KEYS - 6) / 2 - 1 do
  redis.call('XLEN', KEYS[7 + 2 * i])
  redis.call('ZCARD', KEYS[8 + 2 * i])
  was_there = was_there or has_group(KEYS[7 + 2 * i], group)
end
entry.since = now
redis.call('HSET', pools, id, cjson.encode(entry))
if not was_there then redis.call('HINCRBY', counts, count, 1) end
-- A list that was lost begins anew: so the others on it are not taken for deleted ones.
if is_lost then listed, epoch = '', string.format('%.0f', now) end
redis.call('HSET', meta, 'pools', next_list(listed, epoch), 'pooled', many + 1)
for i = 0, (#KEYS - 6) / 2 - 1 do
  local stream, room, field = KEYS[7 + 2 * i], KEYS[8 + 2 * i], ARGV[12 + i]
  local number = last_number(stream, streams, field, floor)
  redis.call('HSETNX', streams, field, number)
  if not has_group(stream, group) then
    redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  end
  redis.call('ZADD', room, buffer == '' and 'inf' or number + buffer, group)
end
return { 'OK' }
