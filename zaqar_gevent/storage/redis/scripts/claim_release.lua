-- Ends a claim, whose messages are free.
-- KEYS: messages, claims, head.
-- ARGV: now, claim, '1' if upstream's servers work on the queue as well, exact time, delay before the
-- messages can be claimed again ('': that of the queue).
check_here(KEYS[1])
local now, claim = tonumber(ARGV[1]), ARGV[2]
local list, shared_claims = 'messages.' .. claim, ARGV[3] == '1' and KEYS[2]
if not call('ZSCORE', KEYS[2], claim) then
    return
end
local bound, ends, delayed, checked, passed = find_head(KEYS[3], now, shared_claims)
local head = bound and rank_of(bound)
for _, id in ipairs(call('LRANGE', list, 0, -1)) do
    local m = glance(id)
    -- A lease of its own may have ended before.
    if m[CLAIM] == claim and (ARGV[3] == '1' or holder(m, now) == claim) then
        if release(KEYS[1], id, m, now, tonumber(ARGV[4]), ARGV[5]) > 0 then
            bound = nil
        end
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
