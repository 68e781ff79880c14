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

-- A message as the rest of the server wants it, as a map in MsgPack. PERF: the body is in MsgPack
-- already; so a page is one string, which the driver unpacks at once.
local function present(id, m, now)
    local claim = holder(m, now)
    local age = math.max(0, now - tonumber(m[CREATED]))
    local head = cmsgpack.pack('id', id, 'age', age, 'ttl', tonumber(m[TTL]), 'body')
    local count = tonumber(m[COUNT]) or 0
    if claim == '' then
        claim = nil
    end
    if not m[CHECKSUM] then
        return '\134' .. head .. m[B] .. cmsgpack.pack('claim_count', count, 'claim_id', claim)
    end
    return '\135' .. head .. m[B]
        .. cmsgpack.pack('claim_count', count, 'checksum', m[CHECKSUM], 'claim_id', claim)
end

-- Such messages as an array in MsgPack.
local function paginate(messages)
    local count = #messages
    local head
    if count < 16 then
        head = string.char(144 + count)
    elseif count < 65536 then
        head = string.char(220, math.floor(count / 256), count % 256)
    else
        head = string.char(221, 0, math.floor(count / 65536), math.floor(count / 256) % 256,
            count % 256)
    end
    return head .. table.concat(messages)
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

-- Delayed messages are in a set of their own, by when they are due, and get their ranks then. The
-- keys are those of the corrected driver of upstream, see redis_delays.py.
local LATER = '.delayed'

-- Gives places to some of the messages that are due by `exactly`.
local function place(messages, exactly)
    local due = call('ZRANGEBYSCORE', messages .. LATER, '-inf', exactly, 'LIMIT', 0, 100)
    if #due == 0 then
        return
    end
    local counter = string.sub(messages, 1, -9) .. 'rank_counter'
    for _, id in ipairs(due) do
        call('ZREM', messages .. LATER, id)
        if call('EXISTS', id) == 1 then
            call('ZADD', messages, call('INCRBY', counter, 1) - 1, id)
            call('HSET', id, 'd', 0)
        end
    end
end

local function belongs(messages, id)
    return call('ZSCORE', messages, id) or call('ZSCORE', messages .. LATER, id)
end

-- Takes a message out of its queue, and out of the claim that holds it.
local function remove(messages, id, claim)
    call('DEL', id)
    if call('ZREM', messages, id) == 0 then
        call('ZREM', messages .. LATER, id)
    end
    if claim ~= '' and call('LREM', 'messages.' .. claim, 1, id) > 0
            and call('EXISTS', claim) == 1 then
        call('HINCRBY', claim, 'n', -1)
    end
end

