-- Deletes a queue or topic, and parts it from its messages, which are deleted afterwards, some at a
-- time. A queue and a topic of one name share their messages, which go with the last of them.
-- KEYS: names, queue, names of the other kind, index of queues, messages, claims, where to put the
-- messages, the claims, head, token, what came with the queue from another pool (2), subscriptions that go as
-- well ('' for none). ARGV: member of the names, seconds to keep what has been put there, '1' if the queue is
-- not used from here.
-- Returns what the keys of its groups begin with; nothing where it has none.
if ARGV[3] == '1' then
    for _, id in ipairs(call('ZRANGE', KEYS[13], 0, -1)) do
        call('UNLINK', id)
        call('ZREM', subscriptions_of(KEYS[13]), id)
    end
    call('UNLINK', KEYS[13])
else
    check_here(KEYS[5])
    call('ZREM', KEYS[1], ARGV[1])
    call('DEL', KEYS[2])
    if call('ZSCORE', KEYS[3], ARGV[1]) then
        return
    end
end
call('ZREM', KEYS[4], KEYS[5])
local moved = {{KEYS[5], KEYS[7]}, {KEYS[6], KEYS[8]}, {KEYS[5] .. LATER, KEYS[7] .. LATER}}
call('UNLINK', by_posting(KEYS[5]), KEYS[9], KEYS[10], KEYS[11], KEYS[12])
for _, pair in ipairs(moved) do
    if call('EXISTS', pair[1]) == 1 then
        call('RENAME', pair[1], pair[2])
        call('EXPIRE', pair[2], ARGV[2])
    end
end
local prefix = group_keys(KEYS[5])
call('DEL', grouping_of(KEYS[5]))
return prefix
