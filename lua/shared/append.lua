-- append: entries, their dense numbers, and the bells that announce them.
--
-- An entry's id is <epoch>-<number>; numbers of one stream rise by one, so that a reader knows a
-- gap when it sees one. A bell is a hint: it carries the entry where that is small, and a lost one
-- costs time, never an entry.

local BELL_LIMIT = 4096 -- bytes of an entry that still travels inside the bell
local BELL_MOST = 16384 -- bytes of a bell that carries several

-- Announces entries, each an id and its fields. Of an entry a bell carries two netstrings: id, fields
-- and values, with NUL between them, the last field's name being body where there is one; then the
-- body. It is last among the fields, too. A large entry's id comes alone.
-- The bell comes last and by pcall: an ACL that forbids it must not undo or hide what was written.
local function ring_all(bell, stream, entries)
  local parts, many, size = {}, 0, 0
  for _, one in ipairs(entries) do
    local id, fields, most, body = one[1], one[2], #one[2], ''
    if fields[most - 1] == 'body' then most, body = most - 1, fields[most] end
    fields[0] = id
    local head = table.concat(fields, '\0', 0, most)
    if #head + #body > BELL_LIMIT then head, body = id, '' end
    if size + #head + #body > BELL_MOST then
      redis.pcall(bell, stream, table.concat(parts, '', 1, many))
      many, size = 0, 0
    end
    parts[many + 1], parts[many + 2], parts[many + 3] = #head, ':', head
    parts[many + 4], parts[many + 5], parts[many + 6] = #body, ':', body
    many, size = many + 6, size + #head + #body
  end
  redis.pcall(bell, stream, table.concat(parts, '', 1, many))
end

local function ring(bell, stream, id, fields)
  ring_all(bell, stream, { { id, fields } })
end

-- Where somebody deleted the numbers, a stream still knows that of its last entry.
local function number_in(stream, floor)
  local facts = redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'STREAM', stream) or {}
  for i = 1, #facts, 2 do
    if facts[i] == 'last-generated-id' then floor = math.max(floor, tonumber(string.match(facts[i + 1], '%d+$'))) end
  end
  return floor
end

local function last_number(stream, streams, field, floor)
  return tonumber(redis.call('HGET', streams, field) or number_in(stream, floor))
end

local function entry_id(epoch, number)
  return epoch .. '-' .. string.format('%.0f', number)
end

-- The fields with the sender's trace context before them, where there is one.
local function traced(fields, trace)
  return trace == '' and fields or { 'trace', trace, unpack(fields) }
end

-- Adds one entry, and returns its id.
local function add(stream, streams, field, epoch, floor, fields)
  local number = last_number(stream, streams, field, floor) + 1
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
  floor = math.max(floor, last_number(stream, streams, field, floor))
  redis.call('DEL', stream)
  redis.call('HDEL', streams, field)
  redis.call('HSET', meta, 'floor', floor)
  return floor
end
