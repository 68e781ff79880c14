-- Adds messages of another store behind those that the queue has, but for those that were added
-- before. Returns how many were new.
-- KEYS: messages, rank counter, claims, ids of the messages that were added before.
-- ARGV: now, start of the ids ('' to keep them), seconds to remember what was added, and of each
-- message id, TTL, created, expires, due (0: visible), client, body, its spelling ('' for the
-- usual one), checksum ('' for none), claim count, claim ('' for none), TTL of the claim, when the claim
-- expires, extras ('' for none), when it can be claimed again (0: at once).
local FIELDS = 15
local now, start = tonumber(ARGV[1]), ARGV[2]
local unplaced = string.gsub(start, '-a(%x+)-$', '-b%1-')
local new = 0
for at = 4, #ARGV, FIELDS do
    local source, ttl, created, expires, due, client, body, spelling, checksum, count, claim,
        claim_ttl, claim_expires, extras, retry_at = unpack(ARGV, at, at + FIELDS - 1)
    local left = tonumber(expires) - now
    local is_new = call('HSETNX', KEYS[4], source, 1) == 1
    if is_new and left > 0 and (start ~= '' or call('EXISTS', source) == 0) then
        local rank = call('INCRBY', KEYS[2], 1) - 1
        local is_delayed = tonumber(due) > now
        local id = source
        if start ~= '' then
            id = (is_delayed and unplaced or start) .. string.format('%012x', rank)
        end
        if claim == '' or tonumber(claim_expires) <= now then
            claim, claim_expires = '', now
        else
            call('RPUSH', 'messages.' .. claim, id)
            call('EXPIREAT', 'messages.' .. claim, claim_expires)
            call('HSET', claim, 'id', claim, 't', claim_ttl, 'e', claim_expires)
            call('HINCRBY', claim, 'n', 1)
            call('EXPIREAT', claim, claim_expires)
            call('ZADD', KEYS[3], claim_expires, claim)
        end
        call('HSET', id, 'id', id, 't', ttl, 'cr', created, 'e', expires, 'u', client, 'c', claim,
            'c.e', claim_expires, 'c.c', count, 'd', is_delayed and math.ceil(due) or retry_at, 'b', body)
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
        if is_delayed then
            call('ZADD', KEYS[1] .. LATER, due, id)
            call('ZADD', by_posting(KEYS[1]), rank, id)
        else
            call('ZADD', KEYS[1], rank, id)
        end
        new = new + 1
    end
end
call('EXPIRE', KEYS[4], ARGV[3])
return new
