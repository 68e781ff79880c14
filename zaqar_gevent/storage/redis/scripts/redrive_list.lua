-- Returns the fields of redrives of a queue, oldest first.
-- KEYS: redrives of the queue. ARGV: what the key of a redrive begins with, number to begin after
-- ('-inf' for the first), limit, fields.
local found, after = {}, ARGV[2]
local limit = tonumber(ARGV[3])
for _, number in ipairs(call('ZRANGEBYSCORE', KEYS[1], '(' .. after, '+inf')) do
    local fields = call('HMGET', ARGV[1] .. number, unpack(ARGV, 4))
    if fields[1] then
        found[#found + 1] = fields
        if #found == limit then
            break
        end
    end
end
return found
