-- Counts the subscriptions of a queue, of which some may be counted already. KEYS: subscriptions.
for _, id in ipairs(call('ZRANGE', KEYS[1], 0, -1)) do
    count_subscription(KEYS[1], id)
end
