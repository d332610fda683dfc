-- Decide all limits of one call: take from every one, or from none. GCRA in microseconds of this server's clock.
-- KEYS[i]: the counter of limit i. ARGV[2i-1]: what a call costs. ARGV[2i]: how far ahead of now its TAT may be.
-- Returns {which limit refuses and waits longest, or 0; its wait; TAT minus now of each limit}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stored = redis.call('MGET', unpack(KEYS))
local ahead, refused, wait = {}, 0, 0

for i = 1, #KEYS do
  local cost, span = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local lead = (tonumber(stored[i] or now) or now) - now
  -- More than span ahead: the clock went back or the limit became smaller.
  ahead[i] = math.min(math.max(lead, 0), span)
  if ahead[i] + cost - span > wait then
    refused, wait = i, ahead[i] + cost - span
  end
end

if refused == 0 then
  for i = 1, #KEYS do
    ahead[i] = ahead[i] + tonumber(ARGV[2 * i - 1])
    -- %.0f: Lua would print a number of this size with 14 digits only.
    redis.call('SET', KEYS[i], string.format('%.0f', now + ahead[i]), 'PX', math.ceil(ahead[i] / 1000))
  end
end

return { refused, wait, unpack(ahead) }
