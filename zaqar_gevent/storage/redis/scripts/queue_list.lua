-- Returns the members of the names of queues or topics, each with its metadata, and whether they are
-- the last ones.
-- KEYS: names. ARGV: where to begin, limit, what the key of a queue has behind its name, bytes of
-- metadata after which to stop.
local limit, left = tonumber(ARGV[2]), tonumber(ARGV[4])
local members = call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, limit)
local found = {}
for _, member in ipairs(members) do
    local key = member .. ARGV[3]
    -- What upstream's server has let in under the name of one of its own keys is left out.
    local metadata = call('TYPE', key).ok == 'hash' and call('HGET', key, 'm')
    found[#found + 1] = {member, metadata}
    left = left - (metadata and #metadata or 0)
    if left <= 0 then
        break
    end
end
return {found, #found == #members and #members < limit and 1 or 0}
