-- board: the open questions of one audience. An offer lies on the board until somebody acquires
-- its channel or the source takes it back; so a late registrant, whose group starts at 0, finds
-- exactly the open ones (R68, R69, R71, R98).
--
-- Numbers of a board count events, offers and withdrawals alike; only offers leave an entry.

-- Takes the channel's offers off all its boards and says why on their bells.
-- pairs: KEYS from `first` on are board, room, board, room...; ARGV from `first_field` on their fields.
local function withdraw(bell, meta, streams, first, first_field, epoch, floor, offers, why)
  local i = 0
  for id in string.gmatch(offers, '%S+') do
    local board, room, field = KEYS[first + 2 * i], KEYS[first + 2 * i + 1], ARGV[first_field + i]
    local number = last_number(streams, field, floor) + 1
    redis.call('XDEL', board, id)
    redis.call('HSET', streams, field, number)
    if redis.call('XLEN', board) == 0 then
      floor = retire(meta, board, room, streams, field, floor)
    end
    ring(bell, board, entry_id(epoch, number), why)
    i = i + 1
  end
end
