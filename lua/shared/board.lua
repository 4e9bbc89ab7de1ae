-- board: the open questions of one audience. An offer lies on the board until somebody acquires
-- its channel or the source takes it back; so a late registrant, whose group starts at 0, finds
-- exactly the open ones (R68, R69, R71, R98).
--
-- Numbers of a board count events, offers and withdrawals alike; only offers leave an entry.

-- The boards of a channel, none of a unidirectional one: the number of each one's next event, how many
-- questions lie on it, and how many listen. KEYS from `first` on are board, room, board, room...; ARGV
-- from `first_field` on their fields.
-- Reads that raise WRONGTYPE for somebody else's key while nothing is written yet.
local function boards_from(first, first_field, streams, floor)
  local numbers, open, listening = {}, {}, {}
  if ARGV[first_field] then numbers = redis.call('HMGET', streams, unpack(ARGV, first_field)) end
  for i = 0, #numbers - 1 do
    open[i + 1] = redis.call('XLEN', KEYS[first + 2 * i])
    listening[i + 1] = redis.call('ZCARD', KEYS[first + 1 + 2 * i])
    numbers[i + 1] = (numbers[i + 1] or number_in(KEYS[first + 2 * i], floor)) + 1
  end
  return { first = first, first_field = first_field, numbers = numbers, open = open, listening = listening }
end

-- Puts the channel's offer on one of them, the first being 0, and rings where somebody listens.
local function put_on(bell, boards, i, offer, fields)
  local board = KEYS[boards.first + 2 * i]
  redis.call('XADD', board, offer, unpack(fields))
  if boards.listening[i + 1] > 0 then ring(bell, board, offer, fields) end
end

-- Takes the channel's offers off all its boards and says why on their bells. A board that is empty
-- then, and that nobody listens to, ends; the floor keeps the numbers of a later one above its own.
local function withdraw(bell, meta, streams, boards, epoch, floor, offers, why)
  local first, first_field, i = boards.first, boards.first_field, 0
  local going_on, over = {}, {}
  for id in string.gmatch(offers, '%S+') do
    local board, field, number = KEYS[first + 2 * i], ARGV[first_field + i], boards.numbers[i + 1]
    local left = boards.open[i + 1] - redis.call('XDEL', board, id)
    if left == 0 and boards.listening[i + 1] == 0 then
      redis.call('DEL', board)
      over[#over + 1] = field
      floor = math.max(floor, number)
    else
      going_on[#going_on + 1] = field
      going_on[#going_on + 1] = number
    end
    ring(bell, board, entry_id(epoch, number), why)
    i = i + 1
  end
  if #going_on > 0 then redis.call('HSET', streams, unpack(going_on)) end
  if #over > 0 then
    redis.call('HDEL', streams, unpack(over))
    redis.call('HSET', meta, 'floor', floor)
  end
end

-- The same for a channel of which nothing else is known: somebody deleted its hash.
local function unlist(bell, meta, streams, boards, epoch, floor, id)
  local offers, found = {}, false
  for i = 1, #boards.numbers do
    offers[i] = '0-0' -- no entry's id
    for _, entry in ipairs(redis.call('XRANGE', KEYS[boards.first + 2 * (i - 1)], '-', '+')) do
      for n = 1, #entry[2], 2 do
        if entry[2][n] == 'channel' and entry[2][n + 1] == id then offers[i], found = entry[1], true end
      end
    end
  end
  local why = { 'event', 'closed', 'channel', id, 'by', '' }
  if found then withdraw(bell, meta, streams, boards, epoch, floor, table.concat(offers, ' '), why) end
end
