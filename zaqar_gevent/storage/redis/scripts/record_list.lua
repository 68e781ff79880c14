-- Returns records of the management store, each with the fields asked for.
-- KEYS: names. ARGV: where to begin, limit (0: all), what stands before a member in its key, fields.
local limit = tonumber(ARGV[2])
local found = {}
for _, member in ipairs(call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, limit > 0 and limit or -1)) do
    local record = call('HMGET', ARGV[3] .. member, unpack(ARGV, 4))
    if record[1] then
        found[#found + 1] = record
    end
end
return found
