-- Takes the first free messages of a queue with groups: under a claim, or away.
-- Returns how many messages, the messages and, where none was found yet, whether there may be some; or 1
-- where the queue may have a dead letter queue that has to be looked up first, 2 where it has no groups, 3
-- where those of another mode have to be removed first.
-- KEYS, ARGV: those of take.lua, but for: [3] '1' if nothing is to be taken in turn before all messages
-- are registered by their groups, [17] the mode ('?': to be read from the metadata), [18] a new token.
check_here(KEYS[1])
if KEYS[3] ~= '' then
    check_here(KEYS[3])
end
local STEP, GROWTH = 1000, 4
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
local known = call('HMGET', grouping, 'm', 't', 'r')
local present_mode, token, reached = known[1], known[2], known[3]
if present_mode and present_mode ~= GROUPS_FORMAT .. mode then
    return 3
elseif not present_mode then
    token, reached = ARGV[18], '-inf'
    call('HSET', grouping, 'm', GROUPS_FORMAT .. mode, 't', token, 'r', reached, 'n', 0)
    -- PERF: with a member of more than 64 bytes, Redis does not search them one after the other.
    local long = string.rep('\0', 65)
    call('ZADD', grouping .. ':' .. token .. ':leases', '+inf', long)
    call('HSET', grouping .. ':' .. token .. ':counts', long, 0)
end
local is_ordered, is_fair = mode % 2 == 1, mode >= 2
local prefix = grouping .. ':' .. token .. ':'
local ready, parked, leases, counts_of_held = prefix .. 'ready', prefix .. 'parked', prefix .. 'leases',
    prefix .. 'counts'
place(KEYS[1], ARGV[10])
call('DEL', KEYS[6])

-- When a message can be claimed; nothing for one that is gone.
local function free_at(m)
    if has_expired(m, now) then
        return
    end
    local at = tonumber(m[DELAYED]) or 0
    if holder(m, now) ~= '' then
        at = math.max(at, tonumber(m[CLAIM_EXPIRES]))
    end
    return math.min(at, tonumber(m[EXPIRES]))
end

-- What this call adds to `leases` and to `counts`. What it takes itself, of which `own` has the numbers by
-- group, does not hold up the others of their groups before its end.
local noted, changes, own = {}, {}, {}
-- What `counts` has, as far as it has been read, and as far as it may be another number than 0 for groups of
-- which this call takes.
local known_counts = {}

local most_claims = tonumber(ARGV[7]) or 0
-- PERF: a number is made a text each time it is given to a command.
local lease_ends = string.format('%.0f', now + ttl)
local hold = holding(KEYS[1], claim, now, ttl, tonumber(ARGV[6]), {ARGV[12], ARGV[13], ARGV[14]})
local page, ids, gone, looked_at = {}, {}, {}, 0

local function note(group, id, held_until)
    noted[#noted + 1] = held_until
    noted[#noted + 1] = id .. ' ' .. group
    changes[group] = (changes[group] or 0) + 1
end

local function is_dead_letter(m)
    return most_claims > 0 and (tonumber(m[COUNT]) or 0) >= most_claims
end

-- Gives a message that is free to the claim.
local function give(group, id, m)
    if claim ~= '' then
        hold(id, m)
        noted[#noted + 1] = ARGV[12] == '' and lease_ends or free_at(glance(id))
        noted[#noted + 1] = id .. ' ' .. group
        if is_ordered and group ~= '' then
            own[group] = (own[group] or 0) + 1
        end
    end
    page[#page + 1] = claim ~= '' and present(id, m, now) or fields_of(id, m)
    ids[#ids + 1] = id
end

-- Takes a registered message, which is not registered any more then. Returns whether it did, and whether
-- its group is held up.
local function take(group, id)
    local m = read(id)
    local at = free_at(m)
    looked_at = looked_at + 1
    if not at or not m[B] then
        if not m[EXPIRES] then
            gone[#gone + 1] = id
        end
        return false, false
    elseif at > exactly then
        note(group, id, at)
        return false, is_ordered and group ~= ''
    elseif is_dead_letter(m) then
        move_to_dead_letters(KEYS[1], KEYS[3], KEYS[4], {KEYS[7], KEYS[8]}, id, ARGV[9], ARGV[1],
            ARGV[8], {queue = ARGV[15], at = ARGV[16]})
        return false, false
    end
    give(group, id, m)
    return true, false
end

-- Whether a group is held up. count: what `counts` has of it, as Redis returns it.
local function is_held(group, count)
    return (count or changes[group]) and group ~= ''
        and (tonumber(count) or 0) + (changes[group] or 0) > 0
end

local function next_turns(count)
    return call('HINCRBY', grouping, 'n', count) - count
end

-- The next messages that are not registered, with their ranks.
local function find_unregistered(step)
    local start = reached == '-inf' and reached or '(' .. reached
    return call('ZRANGEBYSCORE', KEYS[1], start, '+inf', 'WITHSCORES', 'LIMIT', '0', step)
end

-- Takes one message of each of the groups whose turn it is, where there are enough of them. PERF: those
-- that have more get their next turns together, and whether they are held is told when these come.
local function take_one_of_each()
    local groups = call('ZRANGE', ready, '0', limit - 1)
    if #groups < limit then
        return
    end
    local held = is_ordered and call('HMGET', counts_of_held, unpack(groups))
    local taken, frees, turns, put_aside, out = {}, {}, {}, {}, {}
    local turn = next_turns(#groups)
    for index, group in ipairs(groups) do
        if is_ordered and is_held(group, held[index]) then
            put_aside[#put_aside + 1] = '0'
            put_aside[#put_aside + 1] = group
            out[#out + 1] = group
        else
            local free = prefix .. 'free:' .. group
            taken[#taken + 1], frees[#frees + 1] = group, free
            local first = call('ZPOPMIN', free)
            if first[1] then
                take(group, first[1])
            end
        end
    end
    -- PERF: most of them have more.
    local have_all_more = #frees > 0 and call('EXISTS', unpack(frees)) == #frees
    for index, group in ipairs(taken) do
        if have_all_more or call('EXISTS', frees[index]) == 1 then
            turns[#turns + 1] = string.format('%d', turn + index)
            turns[#turns + 1] = group
        else
            out[#out + 1] = group
        end
    end
    if #turns > 0 then
        call('ZADD', ready, unpack(turns))
    end
    if #put_aside > 0 then
        call('ZADD', parked, unpack(put_aside))
    end
    if #out > 0 then
        call('ZREM', ready, unpack(out))
    end
end

-- Takes the next messages as they are, where all can be claimed and none of their groups is held; returns
-- whether they are so, and whether there may be more after them.
local function take_next()
    local left = limit - #page
    local found = find_unregistered(left)
    if #found == 0 then
        return true, false
    end
    local free, contents, groups = {}, {}, {}
    for index = 1, #found, 2 do
        local id = found[index]
        local m = read(id)
        local at = free_at(m)
        if at and m[B] then
            if at > exactly or is_dead_letter(m) then
                return false, true
            end
            local number = #free + 1
            free[number], contents[number], groups[number] = id, m, group_of(m[EXTRAS])
        elseif not m[EXPIRES] then
            gone[#gone + 1] = id
        end
    end
    local held = #groups > 0 and call('HMGET', counts_of_held, unpack(groups))
    for index, group in ipairs(groups) do
        if is_held(group, held[index]) then
            return false, true
        end
    end
    for index, id in ipairs(free) do
        give(groups[index], id, contents[index])
    end
    reached = found[#found]
    call('HSET', grouping, 'r', reached)
    return true, #found == 2 * left
end

-- Writes what has been noted of messages that are held, but for `changes`.
local function write_noted()
    for index = 1, #noted, 2000 do
        call('ZADD', leases, unpack(noted, index, math.min(index + 1999, #noted)))
    end
    local set = {}
    for group, count in pairs(own) do
        -- PERF: as a text, which Redis would make of it otherwise.
        local sum = string.format('%d', (known_counts[group] or 0) + count)
        known_counts[group] = known_counts[group] and tonumber(sum)
        set[#set + 1] = group
        set[#set + 1] = sum
    end
    for index = 1, #set, 2000 do
        call('HSET', counts_of_held, unpack(set, index, math.min(index + 1999, #set)))
    end
    noted, own = {}, {}
end

-- Ends this call, which has written its `changes`; returns its answer.
local function finish(has_more)
    write_noted()
    forget(KEYS[1], gone)
    if claim == '' then
        take_out(KEYS[1], ids)
    elseif #ids > 0 then
        keep_claim(KEYS[2], claim, ids, now, ttl)
    end
    return {#page, claim ~= '' and paginate(page) or page, #page == 0 and has_more and 1}
end

-- Messages that were held, and may be free or gone; and with turns, those that are not registered.
local due = call('ZRANGEBYSCORE', leases, '-inf', ARGV[10], 'LIMIT', '0', STEP)
local unregistered = is_fair and find_unregistered(STEP)
-- PERF: most claims find nothing to do before they take, and take enough then. The functions below would
-- cost them more than that.
local is_usual, are_next_free, may_be_more = #due == 0, false, true
if is_fair then
    is_usual = is_usual and #unregistered == 0
else
    is_usual = is_usual and call('EXISTS', ready) == 0
end
if is_usual and is_fair then
    take_one_of_each()
elseif is_usual then
    are_next_free, may_be_more = take_next()
end
if #page == limit and not next(changes) then
    return finish(false)
end

-- How many messages of groups are held, by their names. PERF: one command for all.
local function count_held(groups)
    local by_group = {}
    if is_ordered then
        local unknown = {}
        for _, group in ipairs(groups) do
            if not known_counts[group] then
                unknown[#unknown + 1] = group
            end
        end
        for start = 1, #unknown, 1000 do
            local some = {unpack(unknown, start, math.min(start + 999, #unknown))}
            for index, count in ipairs(call('HMGET', counts_of_held, unpack(some))) do
                known_counts[some[index]] = tonumber(count) or 0
            end
        end
    end
    for _, group in ipairs(groups) do
        by_group[group] = is_ordered and group ~= '' and known_counts[group] + (changes[group] or 0) or 0
    end
    return by_group
end

-- Writes `changes`.
local function write_changes()
    local groups, set, ended = {}, {}, {}
    for group, _ in pairs(changes) do
        groups[#groups + 1] = group
    end
    for group, count in pairs(is_ordered and count_held(groups) or {}) do
        if group ~= '' then
            known_counts[group] = math.max(count, 0)
            if count > 0 then
                set[#set + 1] = group
                set[#set + 1] = string.format('%d', count)
            else
                ended[#ended + 1] = group
            end
        end
    end
    for index = 1, #set, 2000 do
        call('HSET', counts_of_held, unpack(set, index, math.min(index + 1999, #set)))
    end
    for index = 1, #ended, 1000 do
        call('HDEL', counts_of_held, unpack(ended, index, math.min(index + 999, #ended)))
    end
    changes = {}
end

-- Puts a group where it belongs, by the messages that it has.
local function arrange(group, held)
    local first = call('ZRANGE', prefix .. 'free:' .. group, 0, 0, 'WITHSCORES')
    if not first[1] then
        call('ZREM', ready, group)
        call('ZREM', parked, group)
    elseif (held or count_held({group})[group]) > 0 then
        call('ZREM', ready, group)
        call('ZADD', parked, 0, group)
    else
        call('ZREM', parked, group)
        if not is_fair then
            call('ZADD', ready, first[2], group)
        elseif not call('ZSCORE', ready, group) then
            call('ZADD', ready, next_turns(1) + 1, group)
        end
    end
end

-- Looks at those that are due; returns whether there may be more of them.
local function look()
    if #due == 0 then
        return false
    end
    local ended, freed, ended_of = {}, {}, {}
    for _, member in ipairs(due) do
        local id, group = string.match(member, '^(%S+) (.*)$')
        local rank = call('ZSCORE', KEYS[1], id)
        local at = rank and free_at(glance(id))
        if at and at > exactly then
            call('ZADD', leases, at, member)
        else
            ended[#ended + 1] = member
            changes[group] = (changes[group] or 0) - 1
            ended_of[group] = true
            if at then
                call('ZADD', prefix .. 'free:' .. group, rank, id)
                freed[group] = true
            end
        end
    end
    if #ended > 0 then
        call('ZREM', leases, unpack(ended))
        write_changes()
    end
    -- PERF: of most groups nothing else is registered.
    local has_parked = call('EXISTS', parked) == 1
    for group, _ in pairs(ended_of) do
        if freed[group] or has_parked and call('ZSCORE', parked, group) then
            arrange(group)
        end
    end
    return #due == STEP
end

-- Registers a step of messages by their groups, which are found unless they are given; returns whether there
-- may be more.
local function register(step, found)
    found = found or find_unregistered(step)
    local groups, free = {}, {}
    for index = 1, #found, 2 do
        local id, rank = found[index], found[index + 1]
        local m = call('HMGET', id, 'e', 'c', 'c.e', 'd', 'x')
        local at = free_at({nil, nil, nil, m[2], m[3], nil, nil, m[1], m[4]})
        local group = at and group_of(m[5])
        if at and at > exactly then
            note(group, id, at)
            if not free[group] then
                groups[#groups + 1] = group
                free[group] = {}
            end
        elseif at then
            local of_group = free[group]
            if not of_group then
                of_group = {}
                groups[#groups + 1] = group
                free[group] = of_group
            end
            of_group[#of_group + 1] = rank
            of_group[#of_group + 1] = id
        end
    end
    if #found == 0 then
        return false
    end
    reached = found[#found]
    call('HSET', grouping, 'r', reached)
    local held = count_held(groups)
    local now_ready, now_parked = {}, {}
    local turn = is_fair and next_turns(#groups) or 0
    for index, group in ipairs(groups) do
        local of_group = free[group]
        if #of_group > 0 then
            call('ZADD', prefix .. 'free:' .. group, unpack(of_group))
            local list = held[group] > 0 and now_parked or now_ready
            list[#list + 1] = held[group] > 0 and 0 or is_fair and turn + index or of_group[1]
            list[#list + 1] = group
        end
        if held[group] > 0 then
            call('ZREM', ready, group)
        end
    end
    if #now_ready > 0 then
        -- One that is ready already has its place.
        call('ZADD', ready, 'NX', unpack(now_ready))
    end
    if #now_parked > 0 then
        call('ZADD', parked, unpack(now_parked))
    end
    return #found == 2 * step
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
        local held, found, is_right = count_held(groups), {}, true
        for turn, group in ipairs(groups) do
            local one = {group = group, round = 0, turn = turn}
            if held[group] > 0 then
                -- Where groups have turns, this is not told before they have theirs.
                arrange(group, held[group])
                is_right = false
            -- In their order, it is to be known of each that its first message is there.
            elseif advance(one) and (is_fair or tonumber(call('HGET', one.id, 'e') or 0) > now) then
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
        call('ZREM', prefix .. 'free:' .. one.group, one.id)
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
            if is_fair then
                -- It is the turn of the others.
                call('ZREM', ready, group)
            end
            arrange(group)
        end
    end
    return false
end

local has_more = look()
if is_fair then
    if register(STEP, unregistered) then
        write_changes()
        write_noted()
        has_more = true
        if is_patient then
            return {0, '', 1}
        end
    end
    if not is_usual then
        take_one_of_each()
    end
    has_more = take_ready() or has_more
else
    -- Nothing is registered of most queues.
    if not is_usual and call('EXISTS', ready) == 1 then
        has_more = take_ready() or has_more
    end
    local step, passed = limit - #page, 0
    while may_be_more and #page < limit and passed < STEP do
        passed = passed + limit - #page
        if is_usual then
            -- They have been looked at above.
            is_usual = false
        else
            are_next_free, may_be_more = take_next()
        end
        if not are_next_free then
            step = math.min(step, STEP)
            may_be_more = register(step)
            passed = passed + step
            step = step * GROWTH
            has_more = take_ready() or has_more
        end
    end
    has_more = has_more or may_be_more
end

write_changes()
if is_ordered and not is_fair and call('EXISTS', ready) == 1 then
    local taken_from = own
    write_noted()
    for group, _ in pairs(taken_from) do
        if group ~= '' and call('ZSCORE', ready, group) then
            arrange(group)
        end
    end
end
return finish(has_more)
