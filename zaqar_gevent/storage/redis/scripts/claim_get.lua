-- Returns the TTL of a claim, when it expires and its messages; nothing where there is no such claim.
-- Of several leases, the first one that ends counts.
-- KEYS: messages, claims, names of queues. ARGV: queue ('': is not checked), now, claim,
-- '1' if upstream's servers work on the queue as well.
check_here(KEYS[1])
local now, claim = tonumber(ARGV[2]), ARGV[3]
local expires = call('ZSCORE', KEYS[2], claim)
if not expires or tonumber(expires) <= now
        or ARGV[1] ~= '' and not call('ZSCORE', KEYS[3], ARGV[1]) then
    return false
end
local own = call('HMGET', claim, 't', 'e')
local ttl = own[1]
if not ttl then
    return false
end
local held, first, first_id = {}
for _, id in ipairs(call('LRANGE', 'messages.' .. claim, 0, -1)) do
    local m = read(id)
    if is_alive(m, now) and m[CLAIM] == claim and (ARGV[4] == '1' or holder(m, now) == claim) and call('ZSCORE', KEYS[1], id) then
        held[#held + 1] = present(id, m, now)
        local ends = tonumber(m[CLAIM_EXPIRES])
        if not first or ends < first then
            first, first_id = ends, id
        end
    end
end
if first and first ~= tonumber(own[2]) then
    local ends, seconds = string.match(call('HGET', first_id, 'l') or '', '^(%d+) (%d+)$')
    if tonumber(ends) == first then
        ttl = seconds
    end
end
return {ttl, first or expires, paginate(held)}
