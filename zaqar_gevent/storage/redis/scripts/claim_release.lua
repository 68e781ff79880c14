-- Ends a claim, whose messages are free. KEYS: claims, head ('' where it is not kept). ARGV: now, claim.
local now, claim = tonumber(ARGV[1]), ARGV[2]
local list = 'messages.' .. claim
if not call('ZSCORE', KEYS[1], claim) then
    return
end
for _, id in ipairs(call('LRANGE', list, 0, -1)) do
    if call('HGET', id, 'c') == claim then
        call('HSET', id, 'c', '', 'c.e', now)
    end
end
call('ZREM', KEYS[1], claim)
call('DEL', claim, list, KEYS[2])
