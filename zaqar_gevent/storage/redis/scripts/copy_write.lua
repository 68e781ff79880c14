-- Adds messages of another store behind those that the queue has, but for those that were added
-- before. Returns how many were new.
-- KEYS: messages, rank counter, claims, ids of the messages that were added before.
-- ARGV: now, start of the ids ('' to keep them), seconds to remember what was added, and of each
-- message id, TTL, created, expires, due (0: visible), client, body, its spelling ('' for the
-- usual one), checksum ('' for none), claim count, claim ('' for none), TTL of the claim, when the claim
-- expires, extras ('' for none), when it can be claimed again (0: at once).
check_here(KEYS[1])
local FIELDS = 15
local now, start = tonumber(ARGV[1]), ARGV[2]
local new = 0
for at = 4, #ARGV, FIELDS do
    local source, _, _, expires, due = unpack(ARGV, at, at + 4)
    local left = tonumber(expires) - now
    local is_new = call('HSETNX', KEYS[4], source, 1) == 1
    if is_new and left > 0 and (start ~= '' or call('EXISTS', source) == 0) then
        local rank = call('INCRBY', KEYS[2], 1) - 1
        local is_delayed = tonumber(due) > now
        local id = source
        if start ~= '' then
            id = is_delayed and unplaced_id(start, rank) or start .. string.format('%012x', rank)
        end
        write_record(KEYS[1], KEYS[3], now, id, not is_delayed and rank or nil, rank,
            unpack(ARGV, at + 1, at + FIELDS - 1))
        new = new + 1
    end
end
call('EXPIRE', KEYS[4], ARGV[3])
return new
