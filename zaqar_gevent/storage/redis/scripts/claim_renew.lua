-- Begins the TTL of a claim anew. Returns 1; nothing where there is no such claim.
-- KEYS: messages, claims, names of queues, head. ARGV: queue ('': is not checked), now, claim, TTL,
-- grace, '1' if upstream's servers work on the queue as well.
check_here(KEYS[1])
local now, claim, ttl, grace = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local expires, list = now + ttl, 'messages.' .. claim
local until_now = call('ZSCORE', KEYS[2], claim)
if not until_now or tonumber(until_now) <= now or call('EXISTS', claim) == 0
        or ARGV[1] ~= '' and not call('ZSCORE', KEYS[3], ARGV[1]) then
    return false
end
local shared_claims = ARGV[6] == '1' and KEYS[2]
local bound, ends, delayed, checked, passed = find_head(KEYS[4], now, shared_claims)
for _, id in ipairs(call('LRANGE', list, 0, -1)) do
    local m = glance(id)
    -- A message may have had a shorter lease than the claim's longest.
    if m[CLAIM] == claim and not has_expired(m, now)
            and (ARGV[6] == '1' or holder(m, now) == claim) then
        local retry = retry_of(m)
        touch(KEYS[1], {id})
        call('HSET', id, 'c.e', expires)
        if retry > 0 then
            call('HSET', id, 'd', expires + retry)
        end
        if tonumber(m[EXPIRES]) < expires + grace then
            set_expiry(KEYS[1], id, ttl + grace, expires + grace)
        end
        -- Whoever extended the message before may have left its key to expire.
        local seconds = math.max(tonumber(m[EXPIRES]), expires + grace) - now
        if call('TTL', id) < seconds then
            call('EXPIRE', id, seconds)
        end
    end
end
call('HSET', claim, 't', ttl, 'e', expires)
call('EXPIRE', claim, ttl)
call('EXPIRE', list, ttl)
call('ZADD', KEYS[2], expires, claim)
if bound then
    ends = math.min(ends, expires)
    keep_head(KEYS[4], now, shared_claims, bound, ends, delayed, checked, passed)
else
    call('DEL', KEYS[4])
end
return 1
