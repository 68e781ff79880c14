-- Deletes records of the management store: one, or with '*' all that are named.
-- KEYS: names, further names, ... ARGV: member, what stands before a member in its key.
local members = ARGV[1] == '*' and call('ZRANGE', KEYS[1], 0, -1) or {ARGV[1]}
for _, member in ipairs(members) do
    call('DEL', ARGV[2] .. member)
    for _, names in ipairs(KEYS) do
        if call('TYPE', names).ok == 'zset' then
            call('ZREM', names, member)
        end
    end
end
return #members
