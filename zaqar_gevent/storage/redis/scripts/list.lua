-- Lists messages. Returns a page and, where it had to stop before it was full, the rank after which
-- to go on; nothing at all for a marker that has not been given.
-- KEYS: messages, rank counter, head ('' where it is not kept). ARGV: now, marker (an id, '(' and a rank, or '' for the start),
-- limit, exact time, client whose messages are left out ('': none), and '1' to include those that are claimed,
-- those that are delayed.
local CHUNK, MOST = 100, 1000
local now, marker, limit = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local others, claimed, delayed = ARGV[5], ARGV[6] == '1', ARGV[7] == '1'
place(KEYS[1], ARGV[4])

local function count_up_to(rank)
    return call('ZCOUNT', KEYS[1], '-inf', rank)
end

local start = 0
if marker == '' and not claimed then
    local rank, _, passes_delayed = find_head(KEYS[3], now)
    if rank and not (delayed and passes_delayed) then
        start = call('ZCOUNT', KEYS[1], '-inf', '(' .. rank)
    end
elseif string.sub(marker, 1, 1) == '(' then
    start = count_up_to(string.sub(marker, 2))
elseif marker ~= '' then
    local at = call('ZRANK', KEYS[1], marker)
    -- The ids of this driver begin with a digest of the queue and end with the rank: their place is
    -- known when they are gone. The page after any other that is not there is the first.
    local rank
    if not at and string.sub(marker, 1, 8) == string.sub(redis.sha1hex(KEYS[1]), 1, 8) then
        rank = string.match(marker, '^%x+%-%x+%-8%x+%-a%x+%-(%x+)$')
    end
    if at then
        start = at + 1
    elseif rank then
        rank = tonumber(rank, 16)
        if rank >= (tonumber(call('GET', KEYS[2])) or 0) then
            return false
        end
        start = count_up_to(rank)
    end
end

local function is_wanted(m)
    return not has_expired(m, now)
        and (claimed or holder(m, now) == '')
        and (delayed or not is_delayed(m, now))
        and (others == '' or m[CLIENT] ~= others)
end

local page, looked_at, wary = {}, 0, false

-- The page, filled with messages that are not due yet, from this one on.
local function with_delayed(first)
    if delayed and #page < limit then
        for _, id in ipairs(call('ZRANGE', KEYS[1] .. LATER, first, first + limit - #page - 1)) do
            local m = read(id)
            if m[B] and is_wanted(m) then
                page[#page + 1] = present(id, m, now)
            end
        end
    end
    return {paginate(page)}
end

local among_delayed = delayed and marker ~= '' and call('ZRANK', KEYS[1] .. LATER, marker)
if among_delayed then
    return with_delayed(among_delayed + 1)
end
local chunk = math.min(limit, CHUNK)
while true do
    local ids = call('ZRANGE', KEYS[1], start, start + chunk - 1)
    for _, id in ipairs(ids) do
        -- After one that is left out, more may be: their bodies are not read in vain.
        local held_until = wary and not claimed and call('HGET', id, 'c.e')
        if held_until and tonumber(held_until) > now then
            -- It is held. PERF: a single field tells the most.
        elseif not wary or is_wanted(glance(id)) then
            local m = read(id)
            wary = not (m[B] and is_wanted(m))
            if not wary then
                page[#page + 1] = present(id, m, now)
                if #page == limit then
                    return {paginate(page)}
                end
            end
        end
    end
    start = start + #ids
    looked_at = looked_at + #ids
    if #ids < chunk then
        return with_delayed(0)
    end
    if looked_at >= MOST then
        return {paginate(page), call('ZSCORE', KEYS[1], ids[#ids])}
    end
    chunk = CHUNK
end
