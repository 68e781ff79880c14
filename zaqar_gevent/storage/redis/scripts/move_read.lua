-- Returns those of some messages that exist: of each its id, its rank (nothing: it is delayed), its score,
-- the TTL of its claim and all of its fields.
-- KEYS: messages. ARGV: now, ids.
local now, messages = tonumber(ARGV[1]), {}
for index = 2, #ARGV do
    local id = ARGV[index]
    local m = read(id)
    local rank = call('ZSCORE', KEYS[1], id)
    local due = not rank and call('ZSCORE', KEYS[1] .. LATER, id)
    if is_alive(m, now) and (rank or due) then
        local claim = holder(m, now)
        local ttl = claim ~= '' and call('HGET', claim, 't')
        messages[#messages + 1] = {id, rank, rank or due, ttl, call('HGETALL', id)}
    end
end
return messages
