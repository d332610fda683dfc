-- Appends a batch of a writer to a stream and replaces the writer's head, or does neither.
--
-- KEYS  the stream; the hash of the heads
-- ARGV  the writer; number of the record before the batch; the head; the id the stream must end with, or ''; MAXLEN or 0;
--       the lines
-- Returns 'written', or 'moved' where the stream does not end with that id.
--
-- What of the batch was appended before, by an attempt whose answer got lost, is known from the head and left out.

local stream, heads = KEYS[1], KEYS[2]
local writer, before, head, expected, length = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local first = 6 -- of the lines

local id, written = '0-0', 0
local known = redis.call('HGET', heads, writer)
if known then
  local seq
  id, seq = string.match(known, '^(%d+%-%d+) {"seq":(%d+),')
  id, written = id or '0-0', tonumber(seq or 0)
end

if expected ~= '' then
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  if (last[1] and last[1][1] or '0-0') ~= expected then
    return 'moved'
  end
end

if written > before + #ARGV - first + 1 then
  return 'written'
end
for at = first + math.max(0, written - before), #ARGV do
  if length > 0 then
    id = redis.call('XADD', stream, 'MAXLEN', '~', length, '*', 'line', ARGV[at])
  else
    id = redis.call('XADD', stream, '*', 'line', ARGV[at])
  end
end
redis.call('HSET', heads, writer, id .. ' ' .. head)
return 'written'
