-- Makes a subscription, or changes one. Returns 1; 0 where the subscriber has another already;
-- nothing where there is no such subscription.
-- KEYS: subscriptions, subscription. ARGV: '1' for a new one, with an 'a' behind it if the
-- queue is not used from here yet; id, subscriber ('' to leave it), TTL
-- ('' to leave it), pairs of fields and values.
local is_new = string.sub(ARGV[1], 1, 1) == '1'
if string.sub(ARGV[1], -1) ~= 'a' then
    check_here(KEYS[1], #'.subscriptions')
end
if not is_new and (not call('ZSCORE', KEYS[1], ARGV[2]) or call('EXISTS', KEYS[2]) == 0) then
    return false
end
if ARGV[3] ~= '' then
    for _, id in ipairs(call('ZRANGE', KEYS[1], 0, -1)) do
        local subscriber = call('HGET', id, 'u')
        if not subscriber then
            -- It has expired.
            call('ZREM', KEYS[1], id)
        elseif subscriber == ARGV[3] and id ~= ARGV[2] then
            return 0
        end
    end
end
if #ARGV > 4 then
    call('HSET', KEYS[2], unpack(ARGV, 5))
end
if ARGV[4] ~= '' then
    call('EXPIRE', KEYS[2], ARGV[4])
    count_subscription(KEYS[1], ARGV[2])
end
if is_new then
    call('ZADD', KEYS[1], 1, ARGV[2])
end
return 1
