-- Counts messages of a queue that are not counted yet, some at a time. Returns where to go on; nothing
-- at the end.
-- KEYS: messages, or those of them that are delayed. ARGV: now, where to begin ('-inf'), how many to
-- look at.
local now = tonumber(ARGV[1])
local messages = string.gsub(KEYS[1], '%.delayed$', '')
local start = ARGV[2] == '-inf' and '-inf' or '(' .. ARGV[2]
local found = call('ZRANGEBYSCORE', KEYS[1], start, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for index = 1, #found, 2 do
    local expires, bytes = unpack(call('HMGET', found[index], 'e', 'z'))
    if expires and not bytes and tonumber(expires) > now then
        count_bytes(messages, found[index], expires)
    end
end
return #found == 2 * tonumber(ARGV[3]) and found[#found]
