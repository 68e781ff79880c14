-- Writes a message that comes from another store or pool, with its claim while that lasts.
-- rank: its place; nothing for a delayed message, which has the place `posted` among these.
local function write_record(messages, claims, now, id, rank, posted, ...)
    local ttl, created, expires, due, client, body, spelling, checksum, count, claim, claim_ttl,
        claim_expires, extras, retry_at = ...
    if claim == '' or tonumber(claim_expires) <= now then
        claim, claim_expires = '', now
    else
        call('RPUSH', 'messages.' .. claim, id)
        call('EXPIREAT', 'messages.' .. claim, claim_expires)
        call('HSET', claim, 'id', claim, 't', claim_ttl, 'e', claim_expires)
        call('HINCRBY', claim, 'n', 1)
        call('EXPIREAT', claim, claim_expires)
        call('ZADD', claims, claim_expires, claim)
    end
    call('HSET', id, 'id', id, 't', ttl, 'cr', created, 'e', expires, 'u', client, 'c', claim,
        'c.e', claim_expires, 'c.c', count, 'd', rank and retry_at or math.ceil(due), 'b', body)
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
    if counts(messages) then
        count_bytes(messages, id, expires)
    end
    if rank then
        call('ZADD', messages, rank, id)
    else
        call('ZADD', messages .. LATER, due, id)
        call('ZADD', by_posting(messages), posted, id)
    end
end

