-- Returns messages, each with its score, the TTL of its claim and all of its fields; and where to go
-- on, or nothing at the end.
-- KEYS: messages, or those of them that are delayed. ARGV: now, where to begin ('-inf'), how many
-- to look at.
local now = tonumber(ARGV[1])
local start = ARGV[2] == '-inf' and '-inf' or '(' .. ARGV[2]
local found = call('ZRANGEBYSCORE', KEYS[1], start, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local messages = {}
for index = 1, #found, 2 do
    local m = read(found[index])
    if is_alive(m, now) then
        local claim = holder(m, now)
        local ttl = claim ~= '' and call('HGET', claim, 't')
        messages[#messages + 1] = {found[index], found[index + 1], ttl, call('HGETALL', found[index])}
    end
end
return {messages, #found == 2 * tonumber(ARGV[3]) and found[#found]}
