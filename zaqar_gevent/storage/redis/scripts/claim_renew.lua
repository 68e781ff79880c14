-- Begins the TTL of a claim anew. Returns 1; nothing where there is no such claim.
-- KEYS: messages, claims, names of queues, head ('' where it is not kept). ARGV: queue ('': is not checked), now, claim, TTL, grace.
local now, claim, ttl, grace = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local expires, list = now + ttl, 'messages.' .. claim
local until_now = call('ZSCORE', KEYS[2], claim)
if not until_now or tonumber(until_now) <= now or call('EXISTS', claim) == 0
        or ARGV[1] ~= '' and not call('ZSCORE', KEYS[3], ARGV[1]) then
    return false
end
for _, id in ipairs(call('LRANGE', list, 0, -1)) do
    local m = glance(id)
    if m[CLAIM] == claim and not has_expired(m, now) then
        call('HSET', id, 'c.e', expires)
        if tonumber(m[EXPIRES]) < expires then
            call('HSET', id, 't', ttl + grace, 'e', expires + grace)
        end
        -- Whoever extended the message before may have left its key to expire.
        local seconds = math.max(tonumber(m[EXPIRES]), expires + grace) - now
        if call('TTL', id) < seconds then
            call('EXPIRE', id, seconds)
        end
    end
end
local _, head_ends = find_head(KEYS[4], now)
if head_ends and expires < head_ends then
    call('DEL', KEYS[4])
end
call('HSET', claim, 't', ttl, 'e', expires)
call('EXPIRE', claim, ttl)
call('EXPIRE', list, ttl)
call('ZADD', KEYS[2], expires, claim)
return 1
