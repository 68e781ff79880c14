-- Returns the members of the names of queues or topics, each with its metadata.
-- KEYS: names. ARGV: where to begin, limit, what the key of a queue has behind its name.
local found = {}
for _, member in ipairs(call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
    local key = member .. ARGV[3]
    -- What upstream's server has let in under the name of one of its own keys is left out.
    local metadata = call('TYPE', key).ok == 'hash' and call('HGET', key, 'm')
    found[#found + 1] = {member, metadata}
end
return found
