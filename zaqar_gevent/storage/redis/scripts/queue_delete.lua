-- Deletes a queue or topic, and parts it from its messages, which are deleted afterwards, some at a
-- time. A queue and a topic of one name share their messages, which go with the last of them.
-- KEYS: names, queue, names of the other kind, index of queues, messages, claims, where to put the
-- messages, the claims. ARGV: member of the names, seconds to keep what has been put there.
call('ZREM', KEYS[1], ARGV[1])
call('DEL', KEYS[2])
if call('ZSCORE', KEYS[3], ARGV[1]) then
    return
end
call('ZREM', KEYS[4], KEYS[5])
for index = 5, 6 do
    if call('EXISTS', KEYS[index]) == 1 then
        call('RENAME', KEYS[index], KEYS[index + 2])
        call('EXPIRE', KEYS[index + 2], ARGV[2])
    end
end
