-- Deletes some of the messages, or claims, of a queue that is gone. Returns how many are left.
-- KEYS: where they are. ARGV: how many, what stands before the keys of lists that go with them.
local ids = call('ZRANGE', KEYS[1], 0, ARGV[1] - 1)
if not ARGV[2] and counts(KEYS[1]) then
    uncount(KEYS[1], ids)
end
for _, id in ipairs(ids) do
    call('DEL', id)
    if ARGV[2] then
        call('DEL', ARGV[2] .. id)
    end
end
call('ZREMRANGEBYRANK', KEYS[1], 0, ARGV[1] - 1)
return call('ZCARD', KEYS[1])
