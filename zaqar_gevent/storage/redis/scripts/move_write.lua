-- Writes messages of a queue that comes from another pool, in their places, or removes some of them.
-- Returns 0 where the queue does not come by this migration any more.
-- KEYS: messages, claims, what names the migration. ARGV: now, the migration, '1' to remove, and of
-- each message id, rank ('': it is delayed), its rank without the delay, TTL, created, expires, due, client,
-- body, its spelling ('' for the usual one), checksum ('' for none), claim count, claim ('' for none),
-- TTL of the claim, when the claim expires, extras ('' for none), when it can be claimed again (0: at
-- once); of those to be removed, the id.
local FIELDS = 17
local now = tonumber(ARGV[1])
if call('GET', KEYS[3]) ~= ARGV[2] then
    return 0
end
if ARGV[3] == '1' then
    for at = 4, #ARGV do
        remove(KEYS[1], ARGV[at], call('HGET', ARGV[at], 'c') or '')
    end
    return 1
end
for at = 4, #ARGV, FIELDS do
    local id, rank, posted, ttl, created, expires, due, client, body, spelling, checksum, count,
        claim, claim_ttl, claim_expires, extras, retry_at = unpack(ARGV, at, at + FIELDS - 1)
    if claim == '' or tonumber(claim_expires) <= now then
        claim, claim_expires = '', now
    else
        call('RPUSH', 'messages.' .. claim, id)
        call('EXPIREAT', 'messages.' .. claim, claim_expires)
        call('HSET', claim, 'id', claim, 't', claim_ttl, 'e', claim_expires)
        call('HINCRBY', claim, 'n', 1)
        call('EXPIREAT', claim, claim_expires)
        call('ZADD', KEYS[2], claim_expires, claim)
    end
    call('HSET', id, 'id', id, 't', ttl, 'cr', created, 'e', expires, 'u', client, 'c', claim,
        'c.e', claim_expires, 'c.c', count, 'd', rank == '' and math.ceil(due) or retry_at, 'b', body)
    if spelling ~= '' then
        call('HSET', id, 's', spelling)
    end
    if checksum ~= '' then
        call('HSET', id, 'cs', checksum)
    end
    if extras ~= '' then
        call('HSET', id, 'x', extras)
    end
    call('EXPIREAT', id, expires)
    if rank == '' then
        call('ZADD', KEYS[1] .. LATER, due, id)
        call('ZADD', by_posting(KEYS[1]), posted, id)
    else
        call('ZADD', KEYS[1], rank, id)
    end
end
return 1
