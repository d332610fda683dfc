-- Renew the leases of one process. KEYS[i]: where lease ARGV[i + 1] is. ARGV[1]: how long each holds, in microseconds.
local time = redis.call('TIME')
local ends = time[1] * 1000000 + time[2] + tonumber(ARGV[1])

for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], string.format('%.0f', ends), ARGV[i + 1])
  redis.call('PEXPIRE', KEYS[i], math.ceil(ARGV[1] / 1000))
end
