-- Posts messages. Returns their ids; nothing where the queue does not exist.
-- KEYS: messages, rank counter, names of queues, names of topics, topic, receipt, what keeps a token
-- where the queue itself is on another server.
-- ARGV: queue ('': is not checked), now, client, start of the ids, seconds to remember the post
-- (0: not at all), '1' to count the bytes, and of each message TTL, delayed until (with an 's' if
-- its TTL counts from then on), body, its spelling ('' for the
-- usual one), checksum and extras ('' for none).
check_here(KEYS[1])
local now, seconds = tonumber(ARGV[2]), tonumber(ARGV[5])
local keeper = ARGV[1]
if keeper ~= '' and not call('ZSCORE', KEYS[3], keeper) then
    if not call('ZSCORE', KEYS[4], keeper) then
        return false
    end
    keeper = KEYS[5]
end
-- A receipt is of no use once the queue has been deleted, by whichever driver: it names a token
-- that goes with the queue.
local token
if keeper == '' then
    keeper = KEYS[7]
end
if seconds > 0 then
    token = call('HGET', keeper, 'g')
    if not token then
        token = ARGV[4]
        call('HSET', keeper, 'g', token)
    end
    if keeper == KEYS[7] then
        call('EXPIRE', keeper, seconds + 1)
    end
    local found = call('GET', KEYS[6])
    if found then
        local receipt = cmsgpack.unpack(found)
        if receipt[1] == token then
            return receipt[2]
        end
    end
end
local count = (#ARGV - 6) / 6
local rank = call('INCRBY', KEYS[2], count) - count
local ids, ranked, sizes = {}, {}, {}
for index = 0, count - 1 do
    local at = 7 + 6 * index
    local ttl = tonumber(ARGV[at])
    local time, counts_from = string.match(ARGV[at + 1], '^([^s]+)(s?)$')
    local due = tonumber(time)
    -- A scheduled message counts as posted when it is due.
    local created = counts_from == 's' and math.ceil(due) or now
    local id = due > 0 and unplaced_id(ARGV[4], rank + index)
        or ARGV[4] .. string.format('%012x', rank + index)
    local fields = {'id', id, 't', ttl, 'cr', created, 'e', created + ttl, 'u', ARGV[3], 'c', '',
        'c.e', now, 'c.c', 0, 'd', math.ceil(due), 'b', ARGV[at + 2]}
    if ARGV[at + 3] ~= '' then
        fields[#fields + 1] = 's'
        fields[#fields + 1] = ARGV[at + 3]
    end
    if ARGV[at + 4] ~= '' then
        fields[#fields + 1] = 'cs'
        fields[#fields + 1] = ARGV[at + 4]
    end
    if ARGV[at + 5] ~= '' then
        fields[#fields + 1] = 'x'
        fields[#fields + 1] = ARGV[at + 5]
    end
    if ARGV[6] == '1' then
        local bytes = #ARGV[at + 2] + #ARGV[at + 3] + #ARGV[at + 5]
        fields[#fields + 1] = 'z'
        fields[#fields + 1] = bytes
        sizes[created + ttl] = (sizes[created + ttl] or 0) + bytes
    end
    call('HSET', id, unpack(fields))
    call('EXPIRE', id, created + ttl - now)
    ids[index + 1] = id
    if due > 0 then
        call('ZADD', KEYS[1] .. LATER, string.format('%.6f', due), id)
        call('ZADD', by_posting(KEYS[1]), rank + index, id)
    else
        ranked[#ranked + 1] = rank + index
        ranked[#ranked + 1] = id
    end
    if #ranked >= 1000 then
        call('ZADD', KEYS[1], unpack(ranked))
        ranked = {}
    end
end
if #ranked > 0 then
    call('ZADD', KEYS[1], unpack(ranked))
end
for expires, bytes in pairs(sizes) do
    add_bytes(KEYS[1], expires, bytes)
end
if token then
    call('SET', KEYS[6], cmsgpack.pack({token, ids}), 'EX', seconds)
end
return ids
