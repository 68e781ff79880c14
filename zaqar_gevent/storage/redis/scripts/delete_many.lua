-- Deletes messages: all of them, or none where the claims given do not hold them all.
-- Returns nothing, or the message that is not claimed, or the message and its claim.
-- KEYS: messages. ARGV: now, how many claims are given, the claims, the ids.
check_here(KEYS[1])
local now, claims = tonumber(ARGV[1]), tonumber(ARGV[2])
local given, asked, found = {}, {}, {}
for index = 3, 2 + claims do
    given[ARGV[index]] = true
end
local seen = {}
for index = 3 + claims, #ARGV do
    local id = ARGV[index]
    if not seen[id] then
        seen[id] = true
        asked[#asked + 1] = id
    end
end
local ranks = ranks_of(KEYS[1], asked)
for index, id in ipairs(asked) do
    if ranks[index] or call('ZSCORE', KEYS[1] .. LATER, id) then
        local m = call('HMGET', id, 'e', 'c', 'c.e', 'x')
        m = {nil, nil, nil, m[2], m[3], nil, nil, m[1], nil, nil, m[4]}
        local held_by = holder(m, now)
        if claims > 0 and not has_expired(m, now) then
            if held_by == '' then
                return {id}
            elseif not given[held_by] then
                return {id, held_by}
            end
        end
        found[#found + 1] = {id, held_by, m[EXTRAS]}
    end
end
-- PERF: together, since most messages of a claim are deleted together.
local ids, extras, by_claim = {}, {}, {}
for index, one in ipairs(found) do
    ids[index], extras[index] = one[1], one[3]
    if one[2] ~= '' then
        by_claim[one[2]] = by_claim[one[2]] or {}
        table.insert(by_claim[one[2]], one[1])
    end
end
take_out(KEYS[1], ids, extras)
for claim, of_claim in pairs(by_claim) do
    local list = 'messages.' .. claim
    if call('LLEN', list) == #of_claim then
        call('DEL', list)
    else
        for _, id in ipairs(of_claim) do
            call('LREM', list, 1, id)
        end
    end
    if call('EXISTS', claim) == 1 then
        call('HINCRBY', claim, 'n', -#of_claim)
    end
end
return false
