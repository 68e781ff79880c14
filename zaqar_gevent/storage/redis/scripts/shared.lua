-- What all scripts share. Messages are hashes in upstream's format:
-- id, t (TTL), cr (created), e (expires), u (client), c (claim, '' for none), c.e (claim expires),
-- c.c (claim count), d (delayed until), b (body, MsgPack), cs (checksum). Times are whole seconds.

local call = redis.call

local B, TTL, CREATED, CLAIM, CLAIM_EXPIRES, COUNT, CHECKSUM, EXPIRES, DELAYED, CLIENT =
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10

local function read(id)
    return call('HMGET', id, 'b', 't', 'cr', 'c', 'c.e', 'c.c', 'cs', 'e', 'd', 'u')
end

-- The same without what may be long.
local function glance(id)
    local m = call('HMGET', id, 'e', 'c', 'c.e', 'd', 'u')
    return {nil, nil, nil, m[2], m[3], nil, nil, m[1], m[4], m[5]}
end

-- Whether there is a message; a hash without a body is what upstream has left of one.
local function is_alive(m, now)
    return m[B] and m[EXPIRES] and tonumber(m[EXPIRES]) > now
end

local function has_expired(m, now)
    return not m[EXPIRES] or tonumber(m[EXPIRES]) <= now
end

-- The claim that holds a message now; '' for none.
local function holder(m, now)
    if m[CLAIM] and m[CLAIM] ~= '' and tonumber(m[CLAIM_EXPIRES]) > now then
        return m[CLAIM]
    end
    return ''
end

local function is_delayed(m, now)
    return (tonumber(m[DELAYED]) or 0) > now
end

-- A message as the driver reads it.
local function present(id, m, now)
    return {id, m[B], m[TTL], m[CREATED], holder(m, now), m[COUNT], m[CHECKSUM]}
end

-- Where the first message may be that is free, if nobody else works on the queue: its rank, until
-- when that holds, and whether delayed messages are before it. Nothing where that is not known.
local function find_head(key, now)
    local found = key ~= '' and call('GET', key)
    if not found then
        return
    end
    local rank, ends, delayed = string.match(found, '^(%S+) (%S+) (%S)$')
    if tonumber(ends) > now then
        return rank, tonumber(ends), delayed == '1'
    end
end

-- Takes a message out of its queue, and out of the claim that holds it.
local function remove(messages, id, claim)
    call('DEL', id)
    call('ZREM', messages, id)
    if claim ~= '' and call('LREM', 'messages.' .. claim, 1, id) > 0
            and call('EXISTS', claim) == 1 then
        call('HINCRBY', claim, 'n', -1)
    end
end

