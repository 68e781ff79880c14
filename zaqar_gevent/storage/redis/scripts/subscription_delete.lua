-- Ends a subscription of the queue. KEYS: subscriptions, subscription. ARGV: id.
check_here(KEYS[1], #'.subscriptions')
if call('ZREM', KEYS[1], ARGV[1]) == 1 then
    call('DEL', KEYS[2])
    call('ZREM', subscriptions_of(KEYS[1]), ARGV[1])
end
