-- Removes some of the groups of a grouping that is of no use any more. Returns whether there are more.
-- KEYS: messages. ARGV: what the keys of the groups begin with ('': those of the queue, whose grouping ends
-- with them), how many.
local prefix = ARGV[1] ~= '' and ARGV[1] or group_keys(KEYS[1])
if not prefix then
    return 0
end
if ARGV[1] == '' then
    call('HSET', grouping_of(KEYS[1]), 'm', '-')
end
call('UNLINK', prefix .. 'leases', prefix .. 'counts')
for _, kind in ipairs({'ready', 'parked', 'busy'}) do
    local groups = call('ZRANGE', prefix .. kind, 0, ARGV[2] - 1)
    for _, group in ipairs(groups) do
        call('UNLINK', prefix .. 'free:' .. group, prefix .. 'held:' .. group)
    end
    if #groups > 0 then
        call('ZREMRANGEBYRANK', prefix .. kind, 0, ARGV[2] - 1)
        return 1
    end
end
if ARGV[1] == '' then
    call('DEL', grouping_of(KEYS[1]))
end
return 0
