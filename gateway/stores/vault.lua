-- Forget KEYS[1] while it is ARGV[1]. 1 where it was.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
