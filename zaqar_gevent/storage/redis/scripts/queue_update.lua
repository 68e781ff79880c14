-- Replaces the metadata. Returns whether there is such a queue. KEYS: queue. ARGV: metadata.
if call('HEXISTS', KEYS[1], 'm') == 0 then
    return 0
end
call('HSET', KEYS[1], 'm', ARGV[1])
return 1
