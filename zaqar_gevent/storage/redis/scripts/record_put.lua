-- Writes a record of the management store. Returns whether there was one before.
-- KEYS: record, keys that name it. ARGV: member of the names, '1' where the record has to exist,
-- fields and values.
local existed = call('EXISTS', KEYS[1])
if existed == 0 and ARGV[2] == '1' then
    return 0
end
call('HSET', KEYS[1], unpack(ARGV, 3))
for index = 2, #KEYS do
    call('ZADD', KEYS[index], 1, ARGV[1])
end
return existed
