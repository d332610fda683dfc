-- Decide calls one after the other, all limits of each: take from every one, or from none. In microseconds of this
-- server's clock.
-- KEYS: of each group of calls the counters of its limits (GCRA: the TAT), or the leases of a concurrency limit by when
-- they end.
-- ARGV: of each group how many calls it has, all alike, how many limits each of them has, and of each limit
--   what a call costs,
--   how far ahead of now the TAT may be, or how many leases there may be,
--   'r' a rate, 'c' a concurrency limit; in capitals one that only watches;
-- then, where there is a concurrency limit, the name of the lease of its one call and how long that holds.
-- Returns for each call {which limit refuses and waits longest, or 0; its wait; TAT minus now, or the leases, of each
-- limit}. What a limit that only watches would have refused is not counted and returned as -1 - ahead.
local BUSY = 1000000 -- the wait of a concurrency limit: nobody knows when a call will end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stored = redis.call('MGET', unpack(KEYS))
local tats, leases, counted = {}, {}, {}
local names, costs, spans, rates, watching = {}, {}, {}, {}, {} -- of the limits of a group; a table each takes longer
local answers, key, at = {}, 0, 1

while ARGV[at] do
  local calls, count, lease, holds = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), nil, nil
  at = at + 2
  local leased = false
  for i = 1, count do
    local name, kind = KEYS[key + i], ARGV[at + 2]
    names[i], costs[i], spans[i] = name, tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    rates[i], watching[i] = kind == 'r' or kind == 'R', kind == 'R' or kind == 'C'
    if rates[i] then
      tats[name] = tats[name] or tonumber(stored[key + i] or now) or now
    elseif not leases[name] then
      redis.call('ZREMRANGEBYSCORE', name, '-inf', now)
      leases[name] = redis.call('ZCARD', name)
    end
    leased, at = leased or not rates[i], at + 3
  end
  if leased then
    lease, holds, at = ARGV[at], tonumber(ARGV[at + 1]), at + 2
  end
  key = key + count

  for _ = 1, calls do
    local answer, refused, wait = { 0, 0 }, 0, 0
    for i = 1, count do
      -- More than span ahead: the clock went back or the limit became smaller.
      local ahead = rates[i] and math.min(math.max(tats[names[i]] - now, 0), spans[i]) or leases[names[i]]
      local over = ahead + costs[i] - spans[i]
      if over > 0 and watching[i] then
        ahead = -1 - ahead
      elseif over > 0 then
        over = rates[i] and over or BUSY
        if over > wait then
          refused, wait = i, over
        end
      end
      answer[i + 2] = ahead
    end
    answer[1], answer[2] = refused, wait
    for i = 1, refused == 0 and count or 0 do
      local name, ahead = names[i], answer[i + 2] + costs[i]
      if answer[i + 2] < 0 then
        -- It would have refused: nothing is taken of it.
      elseif rates[i] then
        answer[i + 2], tats[name], counted[name] = ahead, now + ahead, true
      else
        answer[i + 2], leases[name] = ahead, ahead
        -- %.0f: Lua would print a number of this size with 14 digits only.
        redis.call('ZADD', name, string.format('%.0f', now + holds), lease)
        redis.call('PEXPIRE', name, math.ceil(holds / 1000))
      end
    end
    answers[#answers + 1] = answer
  end
end

for name in pairs(counted) do
  redis.call('SET', name, string.format('%.0f', tats[name]), 'PX', math.ceil((tats[name] - now) / 1000))
end

return answers
