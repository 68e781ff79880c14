-- Returns what changes of some messages: of each its id, its rank without a delay, and its fields.
-- KEYS: messages, or those that are delayed, ranks of the delayed ones ('' for the others). ARGV: now, where to
-- begin, how many to look at. Then where to go on; nothing at the end.
local now, count = tonumber(ARGV[1]), tonumber(ARGV[3])
local heads, found, after = {}, nil, nil
if KEYS[2] == '' then
    local start = ARGV[2] == '' and '-inf' or '(' .. ARGV[2]
    found = call('ZRANGEBYSCORE', KEYS[1], start, '+inf', 'WITHSCORES', 'LIMIT', 0, count)
    after = found[#found]
else
    -- Two may be due at one moment.
    local start = tonumber(ARGV[2]) or 0
    found = call('ZRANGE', KEYS[1], start, start + count - 1, 'WITHSCORES')
    after = start + count
end
for index = 1, #found, 2 do
    local id = found[index]
    local fields = call('HMGET', id, 'e', 'c', 'c.e', 'c.c', 'd')
    if fields[1] and tonumber(fields[1]) > now and call('HEXISTS', id, 'b') == 1 then
        local rank = KEYS[2] == '' and found[index + 1] or call('ZSCORE', KEYS[2], id)
        heads[#heads + 1] = {id, rank, fields}
    end
end
return {heads, #found == 2 * count and after}
