-- Moves some messages of a redrive, if it is time. Returns how many, the queue that the next one is for
-- if it is none of the targets ('' otherwise), and of each target that has some the name and the messages.
-- KEYS: redrive, when steps are due, running ones of the project, messages.
-- ARGV: exact time, seconds to remember it when it is over, messages and bytes of a step, queue, and of
-- each target the name, the keys of its messages and its rank counter, and the start of its ids.
check_here(KEYS[4])
for at = 7, #ARGV, 4 do
    check_here(ARGV[at])
end
local LOOKED_AT = 500
local exactly, kept = ARGV[1], ARGV[2]
local now = math.floor(tonumber(exactly))
local r = call('HMGET', KEYS[1], 'state', 'target', 'after', 'last', 'remaining', 'rate')
local due = call('ZSCORE', KEYS[2], KEYS[1])
if r[1] ~= 'running' or not due or tonumber(due) > tonumber(exactly) then
    if not due or not r[1] then
        call('ZREM', KEYS[2], KEYS[1])
        call('SREM', KEYS[3], KEYS[1])
    end
    return {0, ''}
end
local explicit = r[2] ~= '' and r[2]
local after, last = r[3], r[4]
local remaining, rate = tonumber(r[5]), tonumber(r[6])
local most, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
if rate then
    most = math.min(most, math.max(1, math.floor(rate)))
end
if remaining then
    most = math.min(most, remaining)
end

local targets = {}
for at = 6, #ARGV, 4 do
    targets[ARGV[at]] = {messages = ARGV[at + 1], counter = ARGV[at + 2], start = ARGV[at + 3], page = {}}
end

local function move(id, m, extras, target)
    local ttl = m[TTL]
    if extras and extras.dead_letter then
        ttl = extras.dead_letter.ttl or ttl
        extras.dead_letter = nil
        if next(extras) then
            m[EXTRAS] = cmsgpack.pack(extras)
            call('HSET', id, 'x', m[EXTRAS])
        else
            m[EXTRAS] = false
            call('HDEL', id, 'x')
        end
    end
    touch(KEYS[4], {id})
    local rank = call('INCRBY', target.counter, 1) - 1
    local moved = target.start .. string.format('%012x', rank)
    call('RENAME', id, moved)
    set_expiry(target.messages, moved, ttl, now + tonumber(ttl))
    call('HSET', moved, 'id', moved, 'cr', now, 'c', '', 'c.e', now, 'c.c', 0, 'd', 0)
    call('EXPIRE', moved, ttl)
    call('ZREM', KEYS[4], id)
    call('ZADD', target.messages, rank, moved)
    m[TTL], m[CREATED], m[CLAIM], m[COUNT] = ttl, tostring(now), '', 0
    target.page[#target.page + 1] = present(moved, m, now)
end

place(KEYS[4], exactly)
local some = call('ZRANGEBYSCORE', KEYS[4], '(' .. after, last, 'WITHSCORES', 'LIMIT', 0, LOOKED_AT)
local moved, left, size, wanted = 0, 0, 0, ''
for at = 1, #some, 2 do
    local id, rank = some[at], some[at + 1]
    local m = glance(id)
    -- What was claimed or waits for a retry when the redrive came by stays where it is.
    if not has_expired(m, now) and holder(m, now) == '' and not is_delayed(m, tonumber(exactly)) then
        m = read(id)
        if m[B] then
            local extras = m[EXTRAS] and cmsgpack.unpack(m[EXTRAS])
            local facts = extras and extras.dead_letter
            local name = explicit or facts and facts.queue
            if not name or name == ARGV[5] then
                left = left + 1
            elseif not targets[name] then
                wanted = name
                break
            else
                move(id, m, extras, targets[name])
                moved = moved + 1
                size = size + #m[B] + (m[SPELLING] and #m[SPELLING] or 0)
            end
        end
    end
    after = rank
    if moved == most or size >= most_bytes then
        break
    end
end
if wanted ~= '' and after == r[3] then
    return {0, wanted}
end
call('HINCRBY', KEYS[1], 'moved', moved)
call('HINCRBY', KEYS[1], 'left', left)
call('HSET', KEYS[1], 'after', after, 'updated', exactly)
if remaining then
    remaining = remaining - moved
    call('HSET', KEYS[1], 'remaining', remaining)
end
if #some == 0 or remaining == 0 then
    end_redrive(KEYS[1], KEYS[2], KEYS[3], 'finished', '', exactly, kept)
else
    local pause = rate and moved / rate or 0
    call('ZADD', KEYS[2], string.format('%.6f', tonumber(exactly) + pause), KEYS[1])
end
local result = {moved, wanted}
for name, target in pairs(targets) do
    if #target.page > 0 then
        result[#result + 1] = name
        result[#result + 1] = paginate(target.page)
    end
end
return result
