-- Decide all limits of one call: take from every one, or from none. In microseconds of this server's clock.
-- KEYS[i]: the counter of limit i (GCRA: its TAT), or the leases of a concurrency limit by when they end.
-- ARGV[3i-2]: what a call costs. ARGV[3i-1]: how far ahead of now the TAT may be, or how many leases there may be.
-- ARGV[3i]: 'r' a rate, 'c' a concurrency limit; in capitals one that only watches.
-- ARGV[3n+1], ARGV[3n+2], where there is a concurrency limit: the name of this call's lease and how long it holds.
-- Returns {which limit refuses and waits longest, or 0; its wait; TAT minus now, or the leases, of each limit}. What a
-- limit that only watches would have refused is not counted and returned as -1 - ahead.
local BUSY = 1000000 -- the wait of a concurrency limit: nobody knows when a call will end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stored = redis.call('MGET', unpack(KEYS))
local ahead, refused, wait = {}, 0, 0

for i = 1, #KEYS do
  local cost, span, kind = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), ARGV[3 * i]
  if kind == 'r' or kind == 'R' then
    local lead = (tonumber(stored[i] or now) or now) - now
    -- More than span ahead: the clock went back or the limit became smaller.
    ahead[i] = math.min(math.max(lead, 0), span)
  else
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
    ahead[i] = redis.call('ZCARD', KEYS[i])
  end
  local over = ahead[i] + cost - span
  if over > 0 then
    if kind == 'r' and over > wait then
      refused, wait = i, over
    elseif kind == 'c' and BUSY > wait then
      refused, wait = i, BUSY
    elseif kind == 'R' or kind == 'C' then
      ahead[i] = -1 - ahead[i]
    end
  end
end

if refused == 0 then
  for i = 1, #KEYS do
    local kind = ARGV[3 * i]
    if ahead[i] < 0 then
      -- It would have refused: nothing is taken of it.
    elseif kind == 'r' or kind == 'R' then
      ahead[i] = ahead[i] + tonumber(ARGV[3 * i - 2])
      -- %.0f: Lua would print a number of this size with 14 digits only.
      redis.call('SET', KEYS[i], string.format('%.0f', now + ahead[i]), 'PX', math.ceil(ahead[i] / 1000))
    else
      local lease, holds = ARGV[3 * #KEYS + 1], tonumber(ARGV[3 * #KEYS + 2])
      ahead[i] = ahead[i] + 1
      redis.call('ZADD', KEYS[i], string.format('%.0f', now + holds), lease)
      redis.call('PEXPIRE', KEYS[i], math.ceil(holds / 1000))
    end
  end
end

return { refused, wait, unpack(ahead) }
