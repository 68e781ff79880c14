-- Deletes messages: all of them, or none where the claims given do not hold them all.
-- Returns nothing, or the message that is not claimed, or the message and its claim.
-- KEYS: messages. ARGV: now, how many claims are given, the claims, the ids.
local now, claims = tonumber(ARGV[1]), tonumber(ARGV[2])
local given, found = {}, {}
for index = 3, 2 + claims do
    given[ARGV[index]] = true
end
for index = 3 + claims, #ARGV do
    local id = ARGV[index]
    if call('ZSCORE', KEYS[1], id) then
        local m = glance(id)
        local held_by = holder(m, now)
        if claims > 0 and not has_expired(m, now) then
            if held_by == '' then
                return {id}
            elseif not given[held_by] then
                return {id, held_by}
            end
        end
        found[#found + 1] = {id, held_by}
    end
end
for _, one in ipairs(found) do
    remove(KEYS[1], one[1], one[2])
end
return false
