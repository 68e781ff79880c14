-- Deletes messages that are not claimed, some at a time. Returns the rank after which to go on;
-- nothing at the end.
-- KEYS: messages. ARGV: now, rank to begin after ('-inf'), last rank ('': of the newest message
-- now), how many to look at.
check_here(KEYS[1])
local now = tonumber(ARGV[1])
local last = ARGV[3]
if last == '' then
    local newest = call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
    last = newest[2]
end
if ARGV[3] == '' then
    for _, id in ipairs(call('ZRANGE', KEYS[1] .. LATER, 0, 4999)) do
        remove(KEYS[1], id, '')
    end
end
if not last then
    return false
end
local start = ARGV[2] == '-inf' and '-inf' or '(' .. ARGV[2]
local found = call('ZRANGEBYSCORE', KEYS[1], start, last, 'WITHSCORES', 'LIMIT', 0, ARGV[4])
for index = 1, #found, 2 do
    if holder(glance(found[index]), now) == '' then
        remove(KEYS[1], found[index], '')
    end
end
return #found > 0 and {found[#found], last}
