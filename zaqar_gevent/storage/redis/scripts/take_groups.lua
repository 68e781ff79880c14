-- Takes the first free messages of a queue with groups: under a claim, or away.
-- Returns how many messages, the messages and, where none was found yet, whether there may be some; or 1
-- where the queue may have a dead letter queue that has to be looked up first, 2 where it has no groups, 3
-- where those of another mode have to be removed first.
-- KEYS, ARGV: those of take.lua, but for: [3] '1' if nothing is to be taken in turn before all messages
-- have been given to their groups, [17] the mode ('?': to be read from the metadata), [18] a new token.
check_here(KEYS[1])
if KEYS[3] ~= '' then
    check_here(KEYS[3])
end
local STEP, LOOKS = 1000, 100
local now, limit, claim, is_patient = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4], ARGV[3] == '1'
local exactly, ttl = tonumber(ARGV[10]), tonumber(ARGV[5])
local grouping = grouping_of(KEYS[1])

local mode = tonumber(ARGV[17])
local metadata = (ARGV[7] == '?' or not mode) and call('HGET', KEYS[5], 'm')
if not mode then
    local settings = metadata and cmsgpack.unpack(metadata) or {}
    mode = (settings._ordered_groups == true and 1 or 0) + (settings._fair_groups == true and 2 or 0)
end
if mode == 0 then
    return 2
elseif ARGV[7] == '?' and metadata and string.find(metadata, '_dead_letter_queue', 1, true) then
    return 1
end
local present_mode = call('HGET', grouping, 'm')
if present_mode and present_mode ~= tostring(mode) then
    return 3
elseif not present_mode then
    call('HSET', grouping, 'm', mode, 't', ARGV[18], 'r', '-inf', 'n', 0)
end
local is_ordered, is_fair = mode % 2 == 1, mode >= 2
local prefix = group_keys(KEYS[1])
local ready, busy = prefix .. 'ready', prefix .. 'busy'
place(KEYS[1], ARGV[10])
call('DEL', KEYS[6])

-- When a message can be claimed; nothing for one that is gone.
local function free_at(m)
    if has_expired(m, now) then
        return
    end
    local held_until = holder(m, now) ~= '' and tonumber(m[CLAIM_EXPIRES]) or 0
    return math.min(math.max(held_until, tonumber(m[DELAYED]) or 0), tonumber(m[EXPIRES]))
end

-- Puts a group where it belongs, by the messages that it has.
local function arrange(group)
    local first = call('ZRANGE', prefix .. 'free:' .. group, 0, 0, 'WITHSCORES')
    local held = call('ZRANGE', prefix .. 'held:' .. group, 0, 0, 'WITHSCORES')
    if held[1] then
        call('ZADD', busy, held[2], group)
    else
        call('ZREM', busy, group)
    end
    if not first[1] or is_ordered and group ~= '' and held[1] then
        call('ZREM', ready, group)
    elseif not is_fair then
        call('ZADD', ready, first[2], group)
    elseif not call('ZSCORE', ready, group) then
        call('ZADD', ready, call('HINCRBY', grouping, 'n', 1), group)
    end
end

-- Looks at the messages of a group that were held, and may be free or gone.
local function look(group)
    local free, held = prefix .. 'free:' .. group, prefix .. 'held:' .. group
    for _, id in ipairs(call('ZRANGEBYSCORE', held, '-inf', ARGV[10], 'LIMIT', 0, STEP)) do
        local rank = call('ZSCORE', KEYS[1], id)
        local at = rank and free_at(glance(id))
        if at and at > exactly then
            call('ZADD', held, at, id)
        else
            call('ZREM', held, id)
            if at then
                call('ZADD', free, rank, id)
            end
        end
    end
    arrange(group)
end

-- Gives a step of messages to their groups; returns whether there may be more.
local function register(step)
    local reached = call('HGET', grouping, 'r')
    local start = reached == '-inf' and reached or '(' .. reached
    local found = call('ZRANGEBYSCORE', KEYS[1], start, '+inf', 'WITHSCORES', 'LIMIT', 0, step)
    for index = 1, #found, 2 do
        local id, rank = found[index], found[index + 1]
        local m = call('HMGET', id, 'e', 'c', 'c.e', 'd', 'x')
        local at = free_at({nil, nil, nil, m[2], m[3], nil, nil, m[1], m[4]})
        local group = at and group_of(m[5])
        if at and at > exactly then
            call('ZADD', prefix .. 'held:' .. group, at, id)
            arrange(group)
        elseif at then
            call('ZADD', prefix .. 'free:' .. group, rank, id)
            -- PERF: one that is ready is so already.
            if not call('ZSCORE', ready, group) then
                arrange(group)
            end
        end
    end
    if #found > 0 then
        call('HSET', grouping, 'r', found[#found])
    end
    return #found == 2 * step
end

local most_claims = tonumber(ARGV[7]) or 0
local hold = holding(KEYS[1], claim, now, ttl, tonumber(ARGV[6]), {ARGV[12], ARGV[13], ARGV[14]})
local page, ids, gone, looked_at = {}, {}, {}, 0
-- Until when groups are held up by this claim.
local held_up_until = {}

-- Takes a message of a group. Returns whether it did, and whether the group is held up.
local function take(group, id)
    local m = read(id)
    local at = free_at(m)
    looked_at = looked_at + 1
    call('ZREM', prefix .. 'free:' .. group, id)
    if not at or not m[B] then
        if not m[EXPIRES] then
            gone[#gone + 1] = id
        end
        return false, false
    elseif at > exactly then
        call('ZADD', prefix .. 'held:' .. group, at, id)
        return false, is_ordered and group ~= ''
    elseif most_claims > 0 and (tonumber(m[COUNT]) or 0) >= most_claims then
        move_to_dead_letters(KEYS[1], KEYS[3], KEYS[4], id, ARGV[9], ARGV[1], ARGV[8],
            {queue = ARGV[15], at = ARGV[16]})
        return false, false
    end
    if claim ~= '' then
        hold(id, m)
        local held_until = ARGV[12] == '' and now + ttl or free_at(glance(id))
        call('ZADD', prefix .. 'held:' .. group, held_until, id)
        held_up_until[group] = math.min(held_up_until[group] or math.huge, held_until)
    end
    page[#page + 1] = present(id, m, now)
    ids[#ids + 1] = id
    return true, false
end

-- Notes the next message of a group that can be taken, and its rank; returns whether there is one.
local function advance(one)
    local found = call('ZRANGE', prefix .. 'free:' .. one.group, 0, 0, 'WITHSCORES')
    one.id, one.rank = found[1], tonumber(found[2])
    return one.id
end

local function precedes(one, other)
    if not is_fair then
        return one.rank < other.rank
    elseif one.round ~= other.round then
        return one.round < other.round
    end
    return one.turn < other.turn
end

-- The groups whose turn it is, each with its first message.
local function find_ready()
    while true do
        local groups = call('ZRANGE', ready, 0, limit - #page - 1)
        local found, is_right = {}, true
        for turn, group in ipairs(groups) do
            local one = {group = group, round = 0, turn = turn}
            -- In their order, it is to be known of each that its first message is there.
            if advance(one) and (is_fair or tonumber(call('HGET', one.id, 'e') or 0) > now) then
                found[#found + 1] = one
            else
                if one.id then
                    call('ZREM', prefix .. 'free:' .. group, one.id)
                    looked_at = looked_at + 1
                end
                arrange(group)
                is_right = false
            end
        end
        if is_right or looked_at >= STEP then
            return found
        end
    end
end

-- Takes from groups until all have been taken, or enough; returns those that it took from, by when it
-- took from each last.
local function take_from(left)
    local taken, last = {}, {}
    while #left > 0 and #page < limit and looked_at < STEP do
        local best = 1
        for index = 2, #left do
            if precedes(left[index], left[best]) then
                best = index
            end
        end
        local one = left[best]
        local is_found, is_held_up = take(one.group, one.id)
        if not last[one.group] then
            taken[#taken + 1] = one.group
        end
        last[one.group] = looked_at
        one.round = one.round + (is_found and 1 or 0)
        if is_held_up or #page < limit and not advance(one) then
            table.remove(left, best)
        end
    end
    table.sort(taken, function(one, other) return last[one] < last[other] end)
    return taken
end

-- Takes from the groups that are ready; returns whether there may be more of them.
local function take_ready()
    while #page < limit do
        local groups = find_ready()
        if #groups == 0 then
            return false
        elseif looked_at >= STEP then
            return true
        end
        for _, group in ipairs(take_from(groups)) do
            if is_ordered and group ~= '' and held_up_until[group] then
                -- PERF: what `arrange` would find.
                call('ZREM', ready, group)
                call('ZADD', busy, held_up_until[group], group)
            else
                if is_fair then
                    -- It is the turn of the others.
                    call('ZREM', ready, group)
                end
                arrange(group)
            end
        end
    end
    return false
end

local due = call('ZRANGEBYSCORE', busy, '-inf', ARGV[10], 'LIMIT', 0, LOOKS)
for _, group in ipairs(due) do
    look(group)
end
local has_more = #due == LOOKS
if is_fair and register(STEP) then
    has_more = true
    if is_patient then
        return {0, paginate(page), 1}
    end
end
-- Before anything is taken, which holds up the rest of its group.
if not is_fair and #find_ready() < limit then
    has_more = register(100 + limit) or has_more
end
has_more = take_ready() or has_more
if not is_fair and #page < limit then
    has_more = register(STEP) or has_more
    has_more = take_ready() or has_more
end

forget(KEYS[1], gone)
if claim == '' then
    take_out(KEYS[1], ids)
elseif #ids > 0 then
    keep_claim(KEYS[2], claim, ids, now, ttl)
end
return {#page, paginate(page), #page == 0 and has_more and 1}
