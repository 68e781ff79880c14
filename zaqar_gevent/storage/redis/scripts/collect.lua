-- Takes ids without a message out of a queue, some at a time, and claims that have expired.
-- Returns how many ids, and the rank after which to go on, or nothing at the end.
-- KEYS: messages, claims. ARGV: now, rank to begin after ('-inf'), how many to look at.
local now, count = tonumber(ARGV[1]), 0
local start = ARGV[2] == '-inf' and '-inf' or '(' .. ARGV[2]
local ids = call('ZRANGEBYSCORE', KEYS[1], start, '+inf', 'LIMIT', 0, ARGV[3])
local is_end = #ids < tonumber(ARGV[3])
local rank = not is_end and call('ZSCORE', KEYS[1], ids[#ids])
for _, id in ipairs(ids) do
    if has_expired(glance(id), now) then
        remove(KEYS[1], id, '')
        count = count + 1
    end
end
call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
return {count, rank}
