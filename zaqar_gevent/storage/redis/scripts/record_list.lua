-- Returns records of the management store, each with the fields asked for.
-- KEYS: names. ARGV: where to begin, limit (0: all), what stands before a member in its key, fields.
local limit = tonumber(ARGV[2])
if limit == 0 then
    limit = -1
end
local found = {}
for _, member in ipairs(call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, limit)) do
    found[#found + 1] = call('HMGET', ARGV[3] .. member, unpack(ARGV, 4))
end
return found
