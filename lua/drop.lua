-- drop: a dead letter is forgotten.
--
-- Without a session: letters can be dropped by a process that begins none, as on a full Redis. The
-- receipt tells a caller who finds no letter whether it was this call that dropped it.
--
-- KEYS     dead      stream  the server's dead letters
--          receipt   string  id of the call by which this letter went
-- ARGV     run       run id of the Redis process that the caller's connection reached
--          letter    the letter's id
--          call      id of this call, minted by the caller
--          keep      ms that the receipt stays
-- RETURNS  OK | GONE
-- ATOMIC   Of those who replay and drop one letter exactly one does, and its receipt is there with that.

-- @include shared/pool

local dead, receipt = unpack(KEYS, 1, 2)
local run, letter, call, keep = unpack(ARGV, 1, 4)

local by = redis.call('GET', receipt)
if is_there(dead, letter) then
  redis.call('XDEL', dead, letter) -- first, so that a full Redis does not refuse the script
  redis.call('SET', receipt, call, 'PX', keep)
  by = call
end
if by == call then return { 'OK' } end
return { 'GONE' }
