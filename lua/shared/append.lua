-- append: entries, their dense numbers, and the bells that announce them.
--
-- An entry's id is <epoch>-<number>; numbers of one stream rise by one, so that a reader knows a
-- gap when it sees one. A bell is a hint: it carries the entry where that is small, and a lost one
-- costs time, never an entry.

local BELL_LIMIT = 4096 -- bytes of an entry that still travels inside the bell

local function netstrings(parts)
  local out = {}
  for i, part in ipairs(parts) do
    part = tostring(part)
    out[i] = #part .. ':' .. part
  end
  return table.concat(out)
end

-- The bell comes last and by pcall: an ACL that forbids it must not undo or hide what was written.
local function ring(bell, stream, id, fields)
  local size = 0
  for _, part in ipairs(fields) do size = size + #tostring(part) end
  if size > BELL_LIMIT then fields = {} end
  redis.pcall(bell, stream, netstrings({ id, unpack(fields) }))
end

local function last_number(streams, field, floor)
  return tonumber(redis.call('HGET', streams, field) or floor)
end

local function entry_id(epoch, number)
  return epoch .. '-' .. string.format('%.0f', number)
end

-- The fields with the sender's trace context, where there is one.
local function traced(fields, trace)
  if trace ~= '' then
    fields[#fields + 1] = 'trace'
    fields[#fields + 1] = trace
  end
  return fields
end

-- Adds one entry, and returns its id.
local function add(stream, streams, field, epoch, floor, fields)
  local number = last_number(streams, field, floor) + 1
  local id = entry_id(epoch, number)
  redis.call('HSET', streams, field, number)
  redis.call('XADD', stream, id, unpack(fields))
  return id
end

-- Adds one entry, rings, and returns its id.
local function append(bell, stream, streams, field, epoch, floor, fields)
  local id = add(stream, streams, field, epoch, floor, fields)
  ring(bell, stream, id, fields)
  return id
end

-- Adds to a process's inbox. A process that was buried has none, and gets none.
local function tell(bell, inbox, streams, field, epoch, fields)
  if redis.call('HEXISTS', streams, field) == 1 then
    append(bell, inbox, streams, field, epoch, 0, fields)
  end
end

-- Ends a stream that nobody listens to and that holds no open question. The floor keeps the
-- numbers of a later stream of that name above those that were used.
local function retire(meta, stream, room, streams, field, floor)
  if redis.call('ZCARD', room) > 0 then return floor end
  floor = math.max(floor, last_number(streams, field, floor))
  redis.call('DEL', stream)
  redis.call('HDEL', streams, field)
  redis.call('HSET', meta, 'floor', floor)
  return floor
end
