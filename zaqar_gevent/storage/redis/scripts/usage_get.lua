-- Returns the number of subscriptions of a project, and the bytes of its messages.
-- KEYS: its subscriptions, its bytes, when these expire. ARGV: now.
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
local over = call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, 5000)
while #over > 0 do
    local bytes = 0
    for _, found in ipairs(call('HMGET', KEYS[2], unpack(over))) do
        bytes = bytes + (found or 0)
    end
    call('HDEL', KEYS[2], unpack(over))
    call('ZREM', KEYS[3], unpack(over))
    call('HINCRBY', KEYS[2], 't', -bytes)
    over = call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, 5000)
end
if call('EXISTS', KEYS[3]) == 0 then
    call('DEL', KEYS[2])
end
return {call('ZCARD', KEYS[1]), tonumber(call('HGET', KEYS[2], 't') or 0)}
