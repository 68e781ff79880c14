-- Writes messages of a queue that comes from another pool, in their places, or removes some of them.
-- Returns 0 where the queue does not come by this migration any more.
-- KEYS: messages, claims, mark. ARGV: now, the migration, '1' to remove, and of
-- each message id, rank ('': it is delayed), its rank without the delay, TTL, created, expires, due, client,
-- body, its spelling ('' for the usual one), checksum ('' for none), claim count, claim ('' for none),
-- TTL of the claim, when the claim expires, extras ('' for none), when it can be claimed again (0: at
-- once); of those to be removed, the id.
local FIELDS = 17
local now = tonumber(ARGV[1])
local found = call('GET', KEYS[3])
local mark = found and cjson.decode(found)[3]
if not mark or mark.state ~= 'arriving' or mark.move ~= ARGV[2] then
    return 0
end
if ARGV[3] == '1' then
    for at = 4, #ARGV do
        remove(KEYS[1], ARGV[at], call('HGET', ARGV[at], 'c') or '')
    end
    return 1
end
for at = 4, #ARGV, FIELDS do
    local id, rank, posted = unpack(ARGV, at, at + 2)
    write_record(KEYS[1], KEYS[2], now, id, rank ~= '' and rank or nil, posted,
        unpack(ARGV, at + 3, at + FIELDS - 1))
end
return 1
