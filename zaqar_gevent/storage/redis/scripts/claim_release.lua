-- Ends a claim, whose messages are free.
-- KEYS: messages, claims, head.
-- ARGV: now, claim, '1' if upstream's servers work on the queue as well.
local now, claim = tonumber(ARGV[1]), ARGV[2]
local list, shared_claims = 'messages.' .. claim, ARGV[3] == '1' and KEYS[2]
if not call('ZSCORE', KEYS[2], claim) then
    return
end
local bound, ends, delayed, checked, passed = find_head(KEYS[3], now, shared_claims)
local head = bound and rank_of(bound)
for _, id in ipairs(call('LRANGE', list, 0, -1)) do
    if call('HGET', id, 'c') == claim then
        call('HSET', id, 'c', '', 'c.e', now)
        local rank = bound and call('ZSCORE', KEYS[1], id)
        if rank and tonumber(rank) <= head then
            bound, head = rank, tonumber(rank)
        end
    end
end
call('ZREM', KEYS[2], claim)
call('DEL', claim, list)
if bound then
    keep_head(KEYS[3], now, shared_claims, bound, ends, delayed, checked, passed)
else
    call('DEL', KEYS[3])
end
