-- Returns when the first step of a redrive is due ('' for never), and of those that are due by now the
-- project, the queue and the number.
-- KEYS: when steps are due. ARGV: exact time, limit.
local first = call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local found = {first[2] or ''}
for _, key in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
    found[#found + 1] = call('HMGET', key, 'project', 'queue', 'number')
end
return found
