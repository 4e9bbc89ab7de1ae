-- append: entries, their dense numbers, and the bells that announce them.
--
-- An entry's id is <epoch>-<number>; numbers of one stream rise by one, so that a reader knows a
-- gap when it sees one. A bell is a hint: it carries the entry where that is small, and a lost one
-- costs time, never an entry.

local BELL_LIMIT = 4096 -- bytes of an entry that still travels inside the bell
local BELL_MOST = 16384 -- bytes of a bell that carries several

-- An entry as a bell carries it, two netstrings: id, fields and values, with NUL between them, the
-- last field's name being body where there is one; then the body.
local function carried(id, fields)
  local head, body = { id }, nil
  for i = 1, #fields, 2 do
    if fields[i] == 'body' then
      body = fields[i + 1]
    else
      head[#head + 1] = fields[i]
      head[#head + 1] = fields[i + 1]
    end
  end
  if body then head[#head + 1] = 'body' end
  head, body = table.concat(head, '\0'), body or ''
  return #head .. ':' .. head .. #body .. ':' .. body
end

-- Announces entries, each an id and its fields.
-- The bell comes last and by pcall: an ACL that forbids it must not undo or hide what was written.
local function ring_all(bell, stream, entries)
  local parts, size = {}, 0
  for _, one in ipairs(entries) do
    local part = carried(one[1], one[2])
    if #part > BELL_LIMIT then part = carried(one[1], {}) end
    if size + #part > BELL_MOST then
      redis.pcall(bell, stream, table.concat(parts))
      parts, size = {}, 0
    end
    parts[#parts + 1], size = part, size + #part
  end
  redis.pcall(bell, stream, table.concat(parts))
end

local function ring(bell, stream, id, fields)
  ring_all(bell, stream, { { id, fields } })
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
