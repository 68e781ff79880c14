-- Counts messages, some at a time. Returns how many there are, how many are claimed, and the rank
-- after which to go on, or nothing at the end.
-- KEYS: messages. ARGV: now, rank to begin after ('-inf'), how many to look at.
local now, total, claimed = tonumber(ARGV[1]), 0, 0
local start = ARGV[2] == '-inf' and '-inf' or '(' .. ARGV[2]
local ids = call('ZRANGEBYSCORE', KEYS[1], start, '+inf', 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
    local m = glance(id)
    if not has_expired(m, now) and call('HEXISTS', id, 'b') == 1 then
        total = total + 1
        if holder(m, now) ~= '' then
            claimed = claimed + 1
        end
    end
end
local is_end = #ids < tonumber(ARGV[3])
return {total, claimed, not is_end and call('ZSCORE', KEYS[1], ids[#ids])}
