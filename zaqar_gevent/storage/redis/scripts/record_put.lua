-- Writes a record of the management store. Returns whether there was one before.
-- KEYS: record, names of all records, names by which they are found as well ('' for none).
-- ARGV: member of the names, '1' where the record has to exist, fields and values.
local existed = call('EXISTS', KEYS[1])
if existed == 0 and ARGV[2] == '1' then
    return 0
end
call('HSET', KEYS[1], unpack(ARGV, 3))
for index = 2, #KEYS do
    -- Upstream's names for flavors and for projects can be the same.
    if KEYS[index] ~= '' and call('TYPE', KEYS[index]).ok ~= 'hash' then
        call('ZADD', KEYS[index], 1, ARGV[1])
    end
end
return existed
