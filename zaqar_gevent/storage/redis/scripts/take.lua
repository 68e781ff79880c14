-- Takes the first free messages: under a claim, or away.
-- Returns how many messages, the messages (a page of those under a claim; the fields of each that is taken
-- away, so that it can be put back whatever is in it) and, where none was found yet, the rank after which to go
-- on; 1 where the queue may have a dead letter queue that has to be looked up first, 2 where it may have
-- groups, which are for take_groups.lua.
-- KEYS: messages, claims, messages and rank counter of the dead letter queue, queue, head, names of queues
-- and of topics ('' where those are on another server).
-- ARGV: now, limit, rank to begin after ('-inf'), claim ('': take away), its TTL, grace, claims
-- after which a message is a dead letter (0: never, '?': to be looked up), TTL of dead letters
-- ('': theirs), start of their ids, exact time, '1' if upstream's servers work on the queue as well,
-- delay before a retry ('' for none): the first, the factor, the longest; queue ('' to tell dead letters
-- nothing of it), time in ISO 8601, '1' if the queue has no groups.
check_here(KEYS[1])
if KEYS[3] ~= '' then
    check_here(KEYS[3])
end
local CHUNK, MOST = 100, 1000
local now, limit, claim = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4]
local ttl, grace = tonumber(ARGV[5]), tonumber(ARGV[6])
local claim_expires = now + ttl
local now_text = ARGV[1]
local shared_claims = ARGV[11] == '1' and KEYS[2]
if ARGV[7] == '?' then
    local metadata = call('HGET', KEYS[5], 'm')
    if ARGV[17] == '' and not shared_claims and metadata
            and string.find(metadata, '_groups', 1, true) then
        return 2
    end
    if metadata and string.find(metadata, '_dead_letter_queue', 1, true) then
        return 1
    end
end
local most_claims = tonumber(ARGV[7]) or 0
local exactly = tonumber(ARGV[10])
if not shared_claims and call('EXISTS', grouping_of(KEYS[1])) == 1 then
    -- What is taken here is not known there.
    call('HSET', grouping_of(KEYS[1]), 'm', '-')
end
place(KEYS[1], ARGV[10])

local function bury(id)
    local facts = ARGV[15] ~= '' and {queue = ARGV[15], at = ARGV[16]} or nil
    return move_to_dead_letters(
        KEYS[1], KEYS[3], KEYS[4], {KEYS[7], KEYS[8]}, id, ARGV[9], now_text, ARGV[8], facts)
end

local hold = holding(KEYS[1], claim, now, ttl, grace, {ARGV[12], ARGV[13], ARGV[14]})

local function is_free(m)
    return not has_expired(m, now) and holder(m, now) == '' and not is_delayed(m, exactly)
end

local page, ids, gone, looked_at, wary = {}, {}, {}, 0, false
local from, head_ends, passes_delayed, checked, passed = find_head(KEYS[6], now, shared_claims)
local keeps_head = true
if ARGV[3] ~= '-inf' and (not from or rank_of(from) < tonumber(ARGV[3])) then
    -- What is before it has not been looked at here.
    keeps_head = false
    from = '(' .. ARGV[3]
end
from, head_ends, checked, passed = from or '-inf', head_ends or math.huge, checked or now, passed or 0
local chunk = math.min(limit, CHUNK)
-- The last message that was looked at, and its rank if it is known.
local last, last_rank
repeat
    local some = call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'LIMIT', 0, chunk)
    for _, id in ipairs(some) do
        local m
        last, last_rank = id, nil
        -- Where one was held, the next is likely to be, too. PERF: a single field tells the most.
        local held_until = wary and tonumber(call('HGET', id, 'c.e') or 0)
        if held_until and held_until > now then
            head_ends = math.min(head_ends, held_until)
            passed = passed + 1
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
                    last_rank = bury(id)
                else
                    if claim ~= '' then
                        hold(id, m)
                    end
                    page[#page + 1] = claim ~= '' and present(id, m, now) or fields_of(id, m)
                    ids[#ids + 1] = id
                end
            end
        end
        if m and not m[EXPIRES] then
            gone[#gone + 1] = id
        elseif m and not has_expired(m, now) and wary then
            -- It is left out until then.
            passed = passed + 1
            if holder(m, now) ~= '' then
                head_ends = math.min(head_ends, tonumber(m[CLAIM_EXPIRES]))
            end
            if is_delayed(m, exactly) then
                head_ends = math.min(head_ends, math.floor(tonumber(m[DELAYED])))
                passes_delayed = true
            end
        end
        if #page == limit then
            break
        end
    end
    looked_at = looked_at + #some
    if last then
        last_rank = last_rank or call('ZSCORE', KEYS[1], last)
        from = '(' .. last_rank
    end
    local is_end = #some < chunk
    chunk = CHUNK
until #page == limit or is_end or looked_at >= MOST

forget(KEYS[1], gone)
if claim ~= '' and #ids > 0 then
    keep_claim(KEYS[2], claim, ids, now, ttl)
    head_ends = math.min(head_ends, claim_expires)
elseif claim == '' then
    take_out(KEYS[1], ids)
end
if keeps_head and last and passed + #ids >= WORTH then
    keep_head(KEYS[6], now, shared_claims, from, head_ends, passes_delayed, checked, passed)
elseif last then
    call('DEL', KEYS[6])
end
return {#page, claim ~= '' and paginate(page) or page, #page == 0 and looked_at >= MOST and last_rank}
