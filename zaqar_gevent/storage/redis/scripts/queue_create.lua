-- Creates a queue or topic. Returns whether there was none.
-- KEYS: names, queue, index of queues. ARGV: member of the names, metadata, now, key of the messages.
if call('ZADD', KEYS[1], 'NX', 1, ARGV[1]) == 0 then
    return 0
end
for field, value in pairs({c = 0, cl = 0, m = ARGV[2], t = ARGV[3]}) do
    call('HSETNX', KEYS[2], field, value)
end
call('ZADD', KEYS[3], 1, ARGV[4])
return 1
