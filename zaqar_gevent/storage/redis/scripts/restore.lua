-- Puts messages that were taken away back at the front, in their order.
-- KEYS: messages, rank counter, head. ARGV: now, client, '1' to count the bytes, and of each message id, TTL, created, claim
-- count, body, its spelling ('' for the usual one), checksum and extras ('' for none).
check_here(KEYS[1])
local now = tonumber(ARGV[1])
local first = call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or call('GET', KEYS[2]) or 0
local count = (#ARGV - 3) / 8
call('DEL', KEYS[3])
for index = 0, count - 1 do
    local at = 4 + 8 * index
    local id, ttl, created = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    if created + ttl > now then
        local rank = string.match(id, '^%x+%-%x+%-8%x+%-a%x+%-(%x+)$')
        -- By a fraction, since another message may have had the place as well.
        rank = rank and tonumber(rank, 16) or math.floor(tonumber(first)) - count + index + 0.5
        call('HSET', id, 'id', id, 't', ttl, 'cr', created, 'e', created + ttl, 'u', ARGV[2],
            'c', '', 'c.e', now, 'c.c', ARGV[at + 3], 'd', 0, 'b', ARGV[at + 4])
        if ARGV[at + 5] ~= '' then
            call('HSET', id, 's', ARGV[at + 5])
        end
        if ARGV[at + 6] ~= '' then
            call('HSET', id, 'cs', ARGV[at + 6])
        end
        if ARGV[at + 7] ~= '' then
            call('HSET', id, 'x', ARGV[at + 7])
        end
        call('EXPIRE', id, created + ttl - now)
        if ARGV[3] == '1' then
            count_bytes(KEYS[1], id, created + ttl)
        end
        call('ZADD', KEYS[1], rank, id)
        local prefix = group_keys(KEYS[1])
        local reached = prefix and call('HGET', grouping_of(KEYS[1]), 'r')
        if reached and reached ~= '-inf' and tonumber(rank) <= tonumber(reached) then
            local group = group_of(ARGV[at + 7] ~= '' and ARGV[at + 7])
            if call('ZADD', prefix .. 'leases', 0, id .. ' ' .. group) == 1 and group ~= '' then
                call('HINCRBY', prefix .. 'counts', group, 1)
            end
        end
    end
end
