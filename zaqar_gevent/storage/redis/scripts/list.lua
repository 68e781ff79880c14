-- Lists messages. Returns a page and, where it had to stop before it was full, the rank after which
-- to go on; nothing at all for a marker that has not been given.
-- KEYS: messages, rank counter, head, claims.
-- ARGV: now, marker (an id, '(' and a rank, or '' for the start), limit, exact time, client whose
-- messages are left out ('': none), '1' to include those that are claimed, '1' those that are delayed,
-- '1' if upstream's servers work on the queue as well.
check_here(KEYS[1])
local CHUNK, MOST = 100, 1000
local now, marker, limit = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local others, claimed, delayed = ARGV[5], ARGV[6] == '1', ARGV[7] == '1'
local shared_claims = ARGV[8] == '1' and KEYS[4]
local exactly = tonumber(ARGV[4])
place(KEYS[1], ARGV[4])
local posted = by_posting(KEYS[1])

-- Gives ranks to delayed messages of servers that do not: they come last.
if delayed and call('ZCARD', posted) < call('ZCARD', KEYS[1] .. LATER) then
    local next_rank = tonumber(call('GET', KEYS[2]) or 0)
    for index, id in ipairs(call('ZRANGE', KEYS[1] .. LATER, 0, 4999)) do
        call('ZADD', posted, 'NX', string.format('%.6f', next_rank - 1 + index / 1e6), id)
    end
end

-- The rank of a marker; false where it has not been given, nothing where it is not known.
local function find_rank(id)
    local rank = call('ZSCORE', KEYS[1], id)
    if rank then
        return rank
    elseif call('ZSCORE', KEYS[1] .. LATER, id) then
        return call('ZSCORE', posted, id) or nil
    elseif string.sub(id, 1, 8) ~= string.sub(redis.sha1hex(KEYS[1]), 1, 8) then
        return
    end
    -- The ids of this driver begin with a digest of the queue and end with the rank: their place is
    -- known when they are gone.
    rank = string.match(id, '^%x+%-%x+%-8%x+%-a%x+%-(%x+)$')
    rank = rank and tonumber(rank, 16)
    if rank and rank >= (tonumber(call('GET', KEYS[2])) or 0) then
        return false
    end
    return rank
end

-- Where to go on among the messages, and among those that are delayed.
local from, from_delayed = '-inf', '-inf'
if string.sub(marker, 1, 1) == '(' then
    from, from_delayed = marker, marker
elseif marker ~= '' then
    local rank = find_rank(marker)
    if rank == false then
        return false
    elseif rank then
        from = '(' .. rank
        from_delayed = from
    end
end
-- As long as it only passes over messages that nobody can have, from the head or the start on, it
-- moves the head, of which it is told how many it has passed before.
local finds_head, head_ends, passes_delayed, checked, passed = from == '-inf', math.huge, false, now, 0
if not claimed then
    local bound, ends, passes, at, count = find_head(KEYS[3], now, shared_claims)
    if bound and (from == '-inf' or rank_of(bound) >= rank_of(from)) and not (delayed and passes) then
        finds_head, from = true, bound
        head_ends, passes_delayed, checked, passed = ends, passes, at, count
    end
end
finds_head = finds_head and not claimed and not delayed
local passed_before = passed

local last, last_rank, passed_last

-- The next ids, at most so many, in the order of their ranks, and whether they are the last ones.
local function read_ids(count)
    if not delayed then
        if last then
            last_rank = call('ZSCORE', KEYS[1], last)
            from = '(' .. last_rank
        end
        local ids = call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'LIMIT', 0, count)
        last = ids[#ids]
        return ids, #ids < count
    end
    local here = call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'WITHSCORES', 'LIMIT', 0, count)
    local there = call('ZRANGEBYSCORE', posted, from_delayed, '+inf', 'WITHSCORES', 'LIMIT', 0, count)
    local ids, at, beside = {}, 1, 1
    while #ids < count and (here[at] or there[beside]) do
        if not there[beside]
                or here[at] and tonumber(here[at + 1]) < tonumber(there[beside + 1]) then
            ids[#ids + 1], last_rank, at = here[at], here[at + 1], at + 2
            from = '(' .. last_rank
        else
            local id = there[beside]
            last_rank, beside = there[beside + 1], beside + 2
            from_delayed = '(' .. last_rank
            if call('ZSCORE', KEYS[1] .. LATER, id) then
                ids[#ids + 1] = id
            else
                -- A server that does not know these ranks has taken it out.
                call('ZREM', posted, id)
            end
        end
    end
    return ids, not here[at] and not there[beside] and math.max(#here, #there) < 2 * count
end

local function is_wanted(m, client)
    return not has_expired(m, now)
        and (claimed or holder(m, now) == '')
        and (delayed or not is_delayed(m, exactly))
        and (others == '' or client ~= others)
end

-- Notes that a message is passed over, or that one is free, before which the head is.
local function pass(id, m)
    if has_expired(m, now) then
        passed_last = id
    elseif holder(m, now) ~= '' then
        head_ends, passed_last = math.min(head_ends, tonumber(m[CLAIM_EXPIRES])), id
        passed = passed + 1
    elseif is_delayed(m, exactly) then
        head_ends, passed_last = math.min(head_ends, math.floor(tonumber(m[DELAYED]))), id
        passed, passes_delayed = passed + 1, true
    else
        finds_head = false
    end
end

local page, looked_at, wary = {}, 0, false

local function finish(continues)
    -- PERF: the head is worth writing where much has been passed.
    if passed - passed_before >= CHUNK then
        local bound = '(' .. call('ZSCORE', KEYS[1], passed_last)
        keep_head(KEYS[3], now, shared_claims, bound, head_ends, passes_delayed, checked, passed)
    end
    if not continues then
        return {paginate(page)}
    end
    return {paginate(page), delayed and last_rank or call('ZSCORE', KEYS[1], last)}
end

local chunk = math.min(limit, CHUNK)
while true do
    local ids, is_end = read_ids(chunk)
    for _, id in ipairs(ids) do
        -- After one that is left out, more may be: their bodies are not read in vain.
        local held_until = wary and not claimed and tonumber(call('HGET', id, 'c.e') or 0)
        if held_until and held_until > now then
            -- It is held. PERF: a single field tells the most.
            if finds_head then
                head_ends, passed_last = math.min(head_ends, held_until), id
                passed = passed + 1
            end
        else
            local m = wary and glance(id)
            if not m or is_wanted(m, m[CLIENT]) then
                m = others == '' and read(id) or read_with_client(id)
                wary = not (m[B] and is_wanted(m, m[CLIENT]))
                if not wary then
                    finds_head = false
                    page[#page + 1] = present(id, m, now)
                    if #page == limit then
                        return finish(false)
                    end
                end
            else
                wary = true
            end
            if wary and finds_head then
                pass(id, m)
            end
        end
    end
    looked_at = looked_at + #ids
    if is_end then
        return finish(false)
    elseif looked_at >= MOST then
        return finish(true)
    end
    chunk = CHUNK
end
