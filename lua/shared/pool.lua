-- pool: what the scripts of pools share.
--
-- A pool is one registration that outlives the processes which serve it, its replicas: consumers
-- of its one group. What a replica has in hand are its pending entries there, so each has one
-- holder, and Redis counts how often it was delivered. A pool's own stream holds only what is not
-- finished; a board holds what is open, whoever else listens to it.

local NOBODY = '~' -- the consumer that holds what was handed back

-- The name of the list of pools after this one: the epoch in which the first was made, and how often
-- it changed since. So a Redis that lost all it had, or its last changes, never names one as before.
local function next_list(listed, epoch)
  local began, changes = string.match(listed, '^(%d+)%-(%d+)$')
  return (began or epoch) .. '-' .. string.format('%.0f', (changes or 0) + 1)
end

-- Whether the group is there: somebody may have destroyed it. By pcall, for Redis says so by an error.
local function has_group(stream, group) return not redis.pcall('XPENDING', stream, group, '-', '+', 1).err end

-- Who has an entry in hand, and how often it was delivered; nil where nobody has it, or there is no group.
local function in_hand(stream, group, id)
  local found = redis.pcall('XPENDING', stream, group, id, id, 1)
  if found[1] then return found[1][2], found[1][4] end
end

-- The same of so many entries whose numbers follow each other, as XPENDING tells it: id, holder, idle
-- time, deliveries; of one that nobody has only its id.
local function row_in_hand(stream, group, first, many)
  local epoch, number = string.match(first, '^(%d+)%-(%d+)$')
  local last = string.format('%s-%.0f', epoch, number + many - 1)
  local found, row, at = redis.pcall('XPENDING', stream, group, first, last, many), {}, 1
  if #found == tonumber(many) then return found end
  for n = 0, many - 1 do
    local id, one = string.format('%s-%.0f', epoch, number + n), found[at]
    local is_held = one and one[1] == id
    row[n + 1] = is_held and one or { id }
    if is_held then at = at + 1 end
  end
  return row
end

-- Whether an entry is in hand by that delivery, and not by a later one to the same replica.
local function is_that(times, delivered) return times == '0' or tonumber(times) == delivered end

local function is_there(stream, id) return #redis.call('XRANGE', stream, id, id) > 0 end

-- Wakes so many replicas that wait for work, those with the least in hand first. Members of `idle`
-- are the inboxes on whose bells they listen; one that is woken fetches, and is idle again when it
-- found less than it had room for. Where nobody hears a bell its process is dead: the next one.
local function wake(bell, idle, most, id)
  while most > 0 do
    local woken = redis.call('ZPOPMIN', idle)[1]
    if not woken then return end
    if redis.pcall(bell, woken, 'work ' .. id) ~= 0 then most = most - 1 end
  end
end
