-- Returns a subscription of the queue, if it has it. KEYS: subscriptions, subscription. ARGV: id.
check_here(KEYS[1], #'.subscriptions')
if not call('ZSCORE', KEYS[1], ARGV[1]) then
    return false
end
local one = call('HMGET', KEYS[2], 's', 'u', 't', 'e', 'o', 'c')
return one[2] and one
