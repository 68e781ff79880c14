-- Counts messages, some at a time. Returns how many there are, how many are claimed, id and creation
-- of the oldest of them (and of the newest of all, where it begins at the start), and the rank after
-- which to go on.
-- KEYS: messages. ARGV: now, rank to begin after ('-inf'), how many to look at, exact time.
check_here(KEYS[1])
local now, total, claimed, oldest, newest = tonumber(ARGV[1]), 0, 0, false, false

place(KEYS[1], ARGV[4])
if ARGV[2] == '-inf' then
    -- Those that are not due are there, too.
    for _, id in ipairs(call('ZRANGE', KEYS[1] .. LATER, 0, 4999)) do
        local expires = call('HGET', id, 'e')
        if expires and tonumber(expires) > now then
            total = total + 1
        end
    end
    total = total + math.max(0, call('ZCARD', KEYS[1] .. LATER) - 5000)
end

local function created(id)
    local found = call('HMGET', id, 'cr', 'e')
    if found[1] and tonumber(found[2]) > now and call('HEXISTS', id, 'b') == 1 then
        return {id, found[1]}
    end
    return false
end

local start = '(' .. ARGV[2]
if ARGV[2] == '-inf' then
    start = '-inf'
    local back = 0
    repeat
        local ids = call('ZREVRANGE', KEYS[1], back, back + 9)
        for _, id in ipairs(ids) do
            newest = newest or created(id)
        end
        back = back + 10
    until newest or #ids < 10
end
local ids = call('ZRANGEBYSCORE', KEYS[1], start, '+inf', 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
    local m = glance(id)
    if not has_expired(m, now) and call('HEXISTS', id, 'b') == 1 then
        total = total + 1
        oldest = oldest or created(id)
        if holder(m, now) ~= '' then
            claimed = claimed + 1
        end
    end
end
local is_end = #ids < tonumber(ARGV[3])
return {total, claimed, oldest, newest, not is_end and call('ZSCORE', KEYS[1], ids[#ids])}
