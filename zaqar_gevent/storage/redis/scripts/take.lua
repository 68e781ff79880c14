-- Takes the first free messages: under a claim, or away.
-- Returns how many messages, the messages and, where none was found yet, the rank after which to go on; 1 where the
-- queue may have a dead letter queue that has to be looked up first.
-- KEYS: messages, claims, messages and rank counter of the dead letter queue, queue, head ('' where
-- it is not kept).
-- ARGV: now, limit, rank to begin after ('-inf'), claim ('': take away), its TTL, grace, claims
-- after which a message is a dead letter (0: never, '?': to be looked up), TTL of dead letters
-- ('': theirs), start of their ids, exact time.
local CHUNK, MOST = 100, 1000
local now, limit, claim = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4]
local ttl, grace = tonumber(ARGV[5]), tonumber(ARGV[6])
local claim_expires = now + ttl
if ARGV[7] == '?' then
    local metadata = call('HGET', KEYS[5], 'm')
    if metadata and string.find(metadata, '_dead_letter_queue', 1, true) then
        return 1
    end
end
local most_claims = tonumber(ARGV[7]) or 0
place(KEYS[1], ARGV[10])

local function bury(id)
    local rank = call('INCRBY', KEYS[4], 1) - 1
    local buried = ARGV[9] .. string.format('%012x', rank)
    call('RENAME', id, buried)
    call('HSET', buried, 'id', buried, 'c', '', 'c.e', now)
    if ARGV[8] ~= '' then
        call('HSET', buried, 't', ARGV[8], 'e', now + tonumber(ARGV[8]))
        call('EXPIRE', buried, ARGV[8])
    end
    call('ZREM', KEYS[1], id)
    call('ZADD', KEYS[3], rank, buried)
end

local function hold(id, m)
    local count = (tonumber(m[COUNT]) or 0) + 1
    local fields = {'c', claim, 'c.e', claim_expires, 'c.c', count}
    if tonumber(m[EXPIRES]) < claim_expires then
        m[TTL] = ttl + grace
        fields[7], fields[8], fields[9], fields[10] = 't', m[TTL], 'e', claim_expires + grace
        call('EXPIRE', id, m[TTL])
    end
    call('HSET', id, unpack(fields))
    m[CLAIM], m[CLAIM_EXPIRES], m[COUNT] = claim, claim_expires, count
end

local function is_free(m)
    return not has_expired(m, now) and holder(m, now) == '' and not is_delayed(m, now)
end

local page, ids, gone, looked_at, wary = {}, {}, {}, 0, false
local rank, head_ends, head_delayed = find_head(KEYS[6], now)
head_ends = head_ends or math.huge
local start = 0
if ARGV[3] ~= '-inf' then
    start = call('ZCOUNT', KEYS[1], '-inf', ARGV[3])
    if not rank then
        -- What is before it has not been looked at here.
        head_ends = 0
    end
elseif rank then
    start = call('ZCOUNT', KEYS[1], '-inf', '(' .. rank)
end
local chunk = math.min(limit, CHUNK)
local last
repeat
    local some = call('ZRANGE', KEYS[1], start, start + chunk - 1)
    local left = 0
    for _, id in ipairs(some) do
        local m
        -- Where one was held, the next is likely to be, too. PERF: a single field tells the most.
        local held_until = wary and call('HGET', id, 'c.e')
        if held_until and tonumber(held_until) > now then
            head_ends = math.min(head_ends, tonumber(held_until))
        else
            m = wary and glance(id)
        end
        if m == nil then
            -- It is held.
        elseif not m or is_free(m) then
            m = read(id)
            wary = not (m[B] and is_free(m))
            if not wary then
                if most_claims > 0 and (tonumber(m[COUNT]) or 0) >= most_claims then
                    bury(id)
                    left = left + 1
                else
                    if claim ~= '' then
                        hold(id, m)
                    end
                    page[#page + 1] = present(id, m, now)
                    ids[#ids + 1] = id
                end
            end
        end
        if m and not m[EXPIRES] then
            gone[#gone + 1] = id
        elseif m and not has_expired(m, now) and wary then
            -- It is left out until then.
            if holder(m, now) ~= '' then
                head_ends = math.min(head_ends, tonumber(m[CLAIM_EXPIRES]))
            end
            if is_delayed(m, now) then
                head_ends = math.min(head_ends, tonumber(m[DELAYED]))
                head_delayed = true
            end
        end
        last = id
        if #page == limit then
            break
        end
    end
    looked_at = looked_at + #some
    start = start + #some - left
    local is_end = #some < chunk
    chunk = CHUNK
until #page == limit or is_end or looked_at >= MOST

if KEYS[6] ~= '' and last then
    if claim ~= '' and #ids > 0 then
        head_ends = math.min(head_ends, claim_expires)
    end
    local ends = math.min(head_ends, now + 3600)
    local after = call('ZSCORE', KEYS[1], last)
    if after and ends > now then
        call('SET', KEYS[6], string.format('%.0f %.0f %d', after + 1, ends, head_delayed and 1 or 0),
            'EX', ends - now)
    end
end
local continue = false
if #page == 0 and looked_at >= MOST then
    continue = last and call('ZSCORE', KEYS[1], last)
end
for index = 1, #gone, 1000 do
    call('ZREM', KEYS[1], unpack(gone, index, math.min(index + 999, #gone)))
end
if claim ~= '' and #ids > 0 then
    local list = 'messages.' .. claim
    for index = 1, #ids, 1000 do
        call('RPUSH', list, unpack(ids, index, math.min(index + 999, #ids)))
    end
    call('EXPIRE', list, ttl)
    call('HSET', claim, 'id', claim, 't', ttl, 'e', claim_expires, 'n', #ids)
    call('EXPIRE', claim, ttl)
    call('ZADD', KEYS[2], claim_expires, claim)
    call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
elseif claim == '' then
    for _, id in ipairs(ids) do
        remove(KEYS[1], id, '')
    end
end
return {#page, paginate(page), continue}
