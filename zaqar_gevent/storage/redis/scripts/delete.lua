-- Deletes a message. Returns 0, or why not: 1 it is claimed, 2 it is not claimed, 3 another claim
-- holds it, 4 there is no such claim.
-- KEYS: messages, claims. ARGV: now, id, claim ('': none).
check_here(KEYS[1])
local now, id, claim = tonumber(ARGV[1]), ARGV[2], ARGV[3]
if not belongs(KEYS[1], id) then
    return 0
end
local m = glance(id)
local held_by = holder(m, now)
if not has_expired(m, now) and held_by ~= claim then
    if claim == '' then
        return 1
    elseif held_by == '' then
        return 2
    end
    local expires = call('ZSCORE', KEYS[2], claim)
    return expires and tonumber(expires) > now and 3 or 4
end
remove(KEYS[1], id, held_by)
return 0
