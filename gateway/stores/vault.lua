-- While KEYS[1] is ARGV[1], put ARGV[2] in its place for ARGV[3] milliseconds, or nothing where there is none. 1 where it was.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('DEL', KEYS[1])
end
return 1
